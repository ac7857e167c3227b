//! What a sandbox stands on when it starts again, after whatever has happened: the layer that it writes to, and frozen
//! ones under it. What is torn is left out, and said.

use crate::layer::{Chain, LayerId, Layers, Left, boot_id};

use super::record::Record;

/// The layer that a sandbox writes to, where it has one already, and those under it.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) open: Option<LayerId>,
    pub(super) below: Chain,
}

impl Stand {
    /// What the sandbox of this record stands on; beside it, what of its files cannot be used, in words for a person.
    pub(super) fn again(old: Record, layers: &Layers) -> (Self, Option<String>) {
        let (below, torn) = old.below.whole(layers);
        if let Some(torn) = torn {
            // Whatever lies on it was made for what it held.
            let lost = told(torn, &below, &old.spec.layers);
            return (Self { open: None, below }, Some(lost));
        }
        let Some(open) = old.layer else { return (Self { open: None, below }, None) };
        let torn = match layers.left(&open) {
            Left::Open => return (Self { open: Some(open), below }, cut_off(&old.boot)),
            // A server that was killed between freezing the layer and writing that down left it so.
            Left::Frozen => match layers.verify(&open) {
                Ok(()) => return (Self { open: None, below: below.under(open) }, None),
                Err(reason) => (open, reason),
            },
            Left::Torn(reason) => (open, reason),
        };
        let live = old.live.map(|live| live.layer).filter(|live| layers.verify(live).is_ok());
        let below = match live {
            Some(live) => below.under(live),
            None => below,
        };
        let lost = told(torn, &below, &old.spec.layers);
        (Self { open: None, below }, Some(lost))
    }
}

fn told((layer, reason): (LayerId, String), below: &Chain, first: &[LayerId]) -> String {
    let stand_in = if below.0 == first { "a fresh start" } else { "the snapshot before it" };
    format!("the snapshot in layer {layer} is torn ({reason}); {stand_in} stands in for it")
}

/// A layer that was being written to when the machine stopped is what the file system kept of it.
fn cut_off(boot: &str) -> Option<String> {
    let text = "the machine stopped while this sandbox was in use; what was written in the last moments before may be \
                missing or cut off";
    (!boot.is_empty() && boot != boot_id()).then(|| text.to_owned())
}
