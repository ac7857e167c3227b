//! What a repository's source said of its branches and tags when it was last asked.

use std::collections::BTreeMap;

use super::mirror::Base;

/// What is asked for of a source: its `HEAD`, its branches and its tags. Forges have others without number.
pub(super) const PATTERNS: [&str; 3] = ["HEAD", "refs/heads/*", "refs/tags/*"];

/// The answer of `git ls-remote --symref`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Refs {
    /// The branch that `HEAD` names; none where it is detached.
    pub(super) head: Option<String>,
    commits: BTreeMap<String, String>,
}

impl Refs {
    /// Reads an answer: `ref: refs/heads/main<TAB>HEAD`, and a line with ID and name for each.
    pub(super) fn read(answer: &str) -> Self {
        let mut refs = Self::default();
        for (what, name) in answer.lines().filter_map(|line| line.split_once('\t')) {
            match what.strip_prefix("ref: refs/heads/") {
                Some(branch) if name == "HEAD" => refs.head = Some(branch.to_owned()),
                Some(_) => {}
                None => drop(refs.commits.insert(name.to_owned(), what.to_owned())),
            }
        }
        refs
    }

    /// Whether a listing of branches, ID and name in each line, has exactly these.
    pub(super) fn has_branches(&self, listing: &str) -> bool {
        let listed: BTreeMap<&str, &str> =
            listing.lines().filter_map(|line| line.split_once(' ')).map(|(commit, name)| (name, commit)).collect();
        let ours =
            self.commits.iter().filter_map(|(name, commit)| Some((name.strip_prefix("refs/heads/")?, &**commit)));
        listed == ours.collect()
    }

    /// What a base means: a branch, or a tag; `HEAD` when absent. Nothing where it may be something else.
    pub(super) fn resolve(&self, base: Option<&str>) -> Option<Base> {
        let Some(base) = base else {
            let commit = self.commits.get("HEAD")?.clone();
            return Some(Base { commit, branch: self.head.clone() });
        };
        if let Some(commit) = self.commits.get(&format!("refs/heads/{base}")) {
            return Some(Base { commit: commit.clone(), branch: Some(base.to_owned()) });
        }
        // Only of an annotated tag it is known that a commit is behind it.
        let commit = self.commits.get(&format!("refs/tags/{base}^{{}}"))?;
        Some(Base { commit: commit.clone(), branch: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "ref: refs/heads/main\tHEAD\n1111\tHEAD\n1111\trefs/heads/main\n2222\trefs/heads/a/b\n\
                          3333\trefs/tags/v1\n4444\trefs/tags/v1^{}\n5555\trefs/tags/light\n";

    #[test]
    fn an_answer_says_what_branches_and_tags_mean() {
        let refs = Refs::read(ANSWER);
        let base = |commit: &str, branch: Option<&str>| {
            Some(Base { commit: commit.to_owned(), branch: branch.map(str::to_owned) })
        };
        assert_eq!(refs.resolve(None), base("1111", Some("main")));
        assert_eq!(refs.resolve(Some("a/b")), base("2222", Some("a/b")));
        assert_eq!(refs.resolve(Some("v1")), base("4444", None));
        assert_eq!(refs.resolve(Some("light")), None, "it may be a tag of a file");
        assert_eq!(refs.resolve(Some("4444")), None);
        assert_eq!(Refs::read("1111\tHEAD\n").resolve(None), base("1111", None));
        assert_eq!(Refs::read("").resolve(None), None);
        assert!(refs.has_branches("2222 a/b\n1111 main"));
        for other in ["1111 main", "2222 a/b\n1111 main\n1 c", "2222 a/b\n2222 main"] {
            assert!(!refs.has_branches(other), "{other}");
        }
    }
}
