//! Says whether two environments make the same image, layer by layer.
//!
//! A layer's fingerprint holds that of the layer below, so a change is seen in its own layer and in all above it. What
//! makes no difference to an image (checks, limits, services) is not in it, nor is the order of packages.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Environment, Packages};

/// Changed whenever the same environment would be built in another way.
const VERSION: &str = "1";

/// The fingerprints of an image's layers, in hexadecimal, from below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprints {
    /// The base itself.
    pub base: String,
    /// With what is installed on it.
    pub packages: String,
    /// After the set-up commands.
    pub setup: String,
    /// After the warm-up commands. It does not tell the commit that they ran on.
    pub warm: String,
}

/// The fingerprints of an environment's layers. `base_digest` names what the base is made of: an image's digest, a
/// Dockerfile's and its context's, the state of a mirror. `runtime` is the version of what Hob puts into a sandbox.
pub fn fingerprints(environment: &Environment, base_digest: &str, runtime: &str) -> Fingerprints {
    let Environment { base, packages, setup, warm, env, user, .. } = environment;
    let base = layer("base", "", &(VERSION, base, base_digest, runtime));
    let packages = layer("packages", &base, &(sorted(packages), env, user));
    let setup = layer("setup", &packages, setup);
    let warm = layer("warm", &setup, warm);
    Fingerprints { base, packages, setup, warm }
}

/// The fingerprint of the whole image: that of its uppermost layer.
pub fn fingerprint(environment: &Environment, base_digest: &str, runtime: &str) -> String {
    fingerprints(environment, base_digest, runtime).warm
}

/// Which of two packages of a list comes first makes no difference; which of two commands or features does.
fn sorted(packages: &Packages) -> Packages {
    let mut packages = packages.clone();
    for list in [&mut packages.apt, &mut packages.pip, &mut packages.npm] {
        list.sort_unstable();
    }
    packages
}

/// JSON keeps texts apart that stand beside each other, and its maps are sorted.
fn layer(name: &str, below: &str, content: &impl Serialize) -> String {
    // Only a map whose keys are no texts cannot be written as JSON; there is none.
    let content = serde_json::to_string(&(name, below, content)).unwrap_or_default();
    Sha256::digest(content.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Base, Dockerfile, parse};
    use super::*;

    fn any_environment() -> impl Strategy<Value = Environment> {
        let words = || prop::collection::vec("[a-c]{0,3}", 0..4);
        let base = prop_oneof![
            Just(Base::Host),
            "[a-b]{1,2}".prop_map(|suite| Base::Debian { suite }),
            "[a-b]{1,2}".prop_map(|reference| Base::Image { reference }),
            "[a-b]{1,2}".prop_map(|path| Base::Dockerfile(Dockerfile { path, ..Dockerfile::default() })),
        ];
        (base, words(), words(), words(), words(), words()).prop_map(|(base, apt, pip, commands, setup, warm)| {
            let packages = Packages { apt, pip, commands, ..Packages::default() };
            Environment { base, packages, setup, warm, ..Environment::default() }
        })
    }

    proptest! {
        #[test]
        fn layers_are_the_same_exactly_where_all_below_is_the_same(one in any_environment(), other in any_environment()) {
            let of = |environment| fingerprints(environment, "sha256:1", "0.1");
            let (a, b) = (of(&one), of(&other));
            let same_base = one.base == other.base;
            let same_packages = same_base && sorted(&one.packages) == sorted(&other.packages);
            let same_setup = same_packages && one.setup == other.setup;
            prop_assert_eq!(a.base == b.base, same_base);
            prop_assert_eq!(a.packages == b.packages, same_packages);
            prop_assert_eq!(a.setup == b.setup, same_setup);
            prop_assert_eq!(a.warm == b.warm, same_setup && one.warm == other.warm);
            prop_assert_eq!(fingerprint(&one, "sha256:1", "0.1"), a.warm);
        }

        #[test]
        fn another_base_or_runtime_is_another_image(one in any_environment()) {
            let all = [("1", "2"), ("2", "2"), ("1", "1"), ("12", ""), ("", "12")];
            let all: std::collections::BTreeSet<_> = all.map(|(base, runtime)| fingerprint(&one, base, runtime)).into();
            prop_assert_eq!(all.len(), 5);
        }

        #[test]
        fn what_moves_a_command_to_its_neighbour_is_seen(mut one in any_environment()) {
            let before = fingerprint(&one, "", "");
            one.warm.insert(0, "x".to_owned());
            one.setup.push("y".to_owned());
            let between = fingerprint(&one, "", "");
            let moved = one.warm.remove(0);
            one.setup.push(moved);
            prop_assert_ne!(&between, &fingerprint(&one, "", ""));
            prop_assert_ne!(&before, &between);
        }
    }

    #[test]
    fn what_makes_no_image_different_does_not_count() {
        let one = parse("warm = 'make'\ncpu = 1\n[packages]\napt = ['git', 'curl']\n").unwrap();
        let other = "warm = ['make'] # the same\nmemory = '1 GiB'\negress = ['a.example']\n[packages]\n\
                     apt = [\n 'curl',\n 'git' ]\n[[checks]]\nname = 'a'\ncommand = 'b'\n[[services]]\nname = 'a'\ncommand = 'b'";
        assert_eq!(fingerprints(&one, "d", "r"), fingerprints(&parse(other).unwrap(), "d", "r"));
        // Stored images are found by it: when this changes, `VERSION` does too.
        assert_eq!(fingerprint(&one, "d", "r")[..16], *"dd56732b408a3c6e");
    }
}
