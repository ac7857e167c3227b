//! The frozen layers under a sandbox, and which of them are still whole.

use serde::{Deserialize, Serialize};

use super::{LayerId, Layers};

/// Frozen layers, topmost first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Chain(pub(crate) Vec<LayerId>);

/// A layer that is not what was frozen, and why.
pub(crate) type Torn = (LayerId, String);

impl Chain {
    /// The same under another layer.
    pub(crate) fn under(mut self, top: LayerId) -> Self {
        self.0.insert(0, top);
        self
    }

    /// The part of the chain that is whole, and the lowest torn layer. What lies on a torn layer was made for what that
    /// held, and cannot be used without it.
    pub(crate) fn whole(self, layers: &Layers) -> (Self, Option<Torn>) {
        let torn = self.0.iter().enumerate().rev().find_map(|(place, id)| Some((place, layers.verify(id).err()?)));
        match torn {
            None => (self, None),
            Some((place, reason)) => {
                let mut above = self.0;
                let below = above.split_off((place + 1).min(above.len()));
                (Self(below), above.pop().map(|id| (id, reason)))
            }
        }
    }
}
