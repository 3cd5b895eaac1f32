//! What a key may do: with which functions, and what with them. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{FunctionName, InvalidName};

/// Something that a key may do with its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Call them on the data plane.
    Invoke,
    /// Look at them, their logs and their usage.
    Read,
    /// Deploy, change and delete them, and everything else.
    Manage,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 3] = [Right::Invoke, Right::Read, Right::Manage];

    /// The word in messages and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Invoke => "invoke",
            Right::Read => "read",
            Right::Manage => "manage",
        }
    }
}

/// Functions by name: `cart` is one, `shop-*` all whose names begin so, `shop.*` those of a service, `*` all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionPattern {
    /// The name, or what it begins with.
    text: String,
    is_prefix: bool,
}

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names no functions: write a name, a prefix and `*` as in `shop-*`, or `*` for all")]
pub struct InvalidPattern(String);

impl FunctionPattern {
    /// Every function.
    pub fn all() -> FunctionPattern {
        FunctionPattern { text: String::new(), is_prefix: true }
    }

    /// Whether it means a function of this name.
    pub fn holds(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.text) } else { name == self.text }
    }

    fn holds_all(&self) -> bool {
        self.is_prefix && self.text.is_empty()
    }
}

impl FromStr for FunctionPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<FunctionPattern, InvalidPattern> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        // `shop.*` is every function of a service.
        let checked: Result<FunctionName, InvalidName> =
            if is_prefix { name.strip_suffix('.').unwrap_or(name) } else { name }.parse();
        if checked.is_err() && !(is_prefix && name.is_empty()) {
            return Err(InvalidPattern(text.chars().take(80).collect()));
        }
        Ok(FunctionPattern { text: name.to_owned(), is_prefix })
    }
}

impl fmt::Display for FunctionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

impl TryFrom<String> for FunctionPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<FunctionPattern, InvalidPattern> {
        text.parse()
    }
}

impl From<FunctionPattern> for String {
    fn from(pattern: FunctionPattern) -> String {
        pattern.to_string()
    }
}

/// Functions, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The functions.
    pub functions: BTreeSet<FunctionPattern>,
    /// What may be done with them; to manage includes the others.
    pub rights: BTreeSet<Right>,
}

impl Scope {
    /// Everything with all functions, and with the host.
    pub fn everything() -> Scope {
        Scope { functions: [FunctionPattern::all()].into(), rights: [Right::Manage].into() }
    }

    /// Whether it allows this with a function of this name, whether or not there is one.
    pub fn allows(&self, right: Right, function: &str) -> bool {
        self.has(right) && self.functions.iter().any(|pattern| pattern.holds(function))
    }

    /// Whether it allows this with all functions, those to come as well, and so with the host.
    pub fn allows_with_all(&self, right: Right) -> bool {
        self.has(right) && self.functions.iter().any(FunctionPattern::holds_all)
    }

    /// Whether it allows this with any function.
    pub fn allows_with_some(&self, right: Right) -> bool {
        self.has(right)
    }

    fn has(&self, right: Right) -> bool {
        self.rights.contains(&right) || self.rights.contains(&Right::Manage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(functions: &[&str], rights: &[Right]) -> Scope {
        let functions = functions.iter().map(|text| text.parse().unwrap()).collect();
        Scope { functions, rights: rights.iter().copied().collect() }
    }

    #[test]
    fn a_scope_is_what_it_says() {
        use Right::{Invoke, Manage, Read};
        let shop = scope(&["shop-*", "cart"], &[Invoke, Read]);
        for (right, function, is_allowed) in [
            (Invoke, "shop-a", true),
            (Read, "shop-", true),
            (Invoke, "cart", true),
            (Manage, "shop-a", false),
            (Invoke, "cart2", false),
            (Invoke, "shop", false),
            (Read, "Shop-a", false),
        ] {
            assert_eq!(shop.allows(right, function), is_allowed, "{right:?} {function}");
        }
        assert!(!shop.allows_with_all(Read));
        let manager = scope(&["shop-*"], &[Manage]);
        assert!([Invoke, Read, Manage].into_iter().all(|right| manager.allows(right, "shop-a")));
        assert!(!manager.allows_with_all(Manage) && Scope::everything().allows_with_all(Manage));
        let reader = scope(&["*"], &[Read]);
        assert!(reader.allows_with_all(Read) && !reader.allows_with_all(Invoke) && !reader.allows(Manage, "x"));
    }

    #[test]
    fn patterns_have_one_spelling() {
        for good in ["*", "cart", "shop-*", "_*", "shop.*", "shop.cart", "shop.c*"] {
            assert_eq!(good.parse::<FunctionPattern>().unwrap().to_string(), good);
        }
        for bad in ["", "**", "*x", "sh*p", "1*", "a b", "a.b.c", "a..*", ".*", "ü*"] {
            assert!(bad.parse::<FunctionPattern>().is_err(), "{bad}");
        }
    }
}
