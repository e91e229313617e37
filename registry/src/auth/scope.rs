//! Scopes of tokens: `repository:<name>:pull,push` (distribution, "Token Scope Documentation").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::reference::Repository;

/// What a request does with its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// A set of actions per resource; written with a space between resources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    pub(crate) fn of(repository: &Repository, access: Access) -> Self {
        let actions: &[&str] = match access {
            Access::Pull => &["pull"],
            Access::Push => &["pull", "push"],
        };
        let actions = actions.iter().map(|&action| action.to_owned()).collect();
        Self(BTreeMap::from([(format!("repository:{}", repository.name()), actions)]))
    }

    /// Reads a challenge's `scope`. What has no actions (ECR Public says `aws`) is kept as it is.
    pub(crate) fn parse(text: &str) -> Self {
        let mut scope = Self::default();
        for part in text.split_ascii_whitespace() {
            let (resource, actions) = match part.rsplit_once(':') {
                Some((resource, actions)) => (resource, actions),
                None => (part, ""),
            };
            let all = scope.0.entry(resource.to_owned()).or_default();
            all.extend(actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
        }
        scope
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all = self.0.clone();
        for (resource, actions) in &other.0 {
            all.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
        Self(all)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (resource, actions)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(resource)?;
            for (i, action) in actions.iter().enumerate() {
                write!(f, "{}{action}", if i == 0 { ":" } else { "," })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    #[test]
    fn parse_union_and_write() {
        let own = Scope::of(&Repository::new("h", "a/b").unwrap(), Access::Pull);
        assert_eq!(own.to_string(), "repository:a/b:pull");
        let all = own.union(&Scope::parse("aws repository:a/b:push,pull  registry:catalog:*"));
        assert_eq!(all.to_string(), "aws registry:catalog:* repository:a/b:pull,push");
        assert_eq!(own.union(&Scope::parse("")), own);
    }
}
