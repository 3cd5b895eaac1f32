//! The error of a function: made from any error or text, mostly by `?`.
//!
//! `instance` turns it into the text that the caller gets. Nothing branches on it, so it has no kinds or codes.

use std::fmt;

/// A result whose error becomes the text that the caller gets.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a function failed. Made by `?` from any [`std::error::Error`], by `.into()` from a text.
///
/// Displayed, it is one line: the error and its causes, outermost first.
///
/// ```
/// fn port(text: &str) -> dormouse_sdk::Result<u16> {
///     if text.is_empty() {
///         return Err("no port given".into());
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(port("").unwrap_err().to_string(), "no port given");
/// assert_eq!(port("many").unwrap_err().to_string(), "invalid digit found in string");
/// ```
pub struct Error(Box<dyn std::error::Error>);

/// Also converts texts. `Error` does not implement `std::error::Error`: this would then conflict with `From<T> for T`.
impl<E: Into<Box<dyn std::error::Error>>> From<E> for Error {
    fn from(error: E) -> Self {
        Error(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The same text as `Display`, because an `unwrap` in a test prints this.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("read the port")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_names_its_causes() {
        let cause = "x".parse::<u8>().unwrap_err();
        assert_eq!(Error::from(Outer(cause)).to_string(), "read the port: invalid digit found in string");
    }

    #[test]
    fn texts_are_errors() {
        assert_eq!(Error::from("plain").to_string(), "plain");
        assert_eq!(Error::from(format!("number {}", 7)).to_string(), "number 7");
    }
}
