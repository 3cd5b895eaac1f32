//! What an endpoint answered.

/// An endpoint's answer.
#[derive(Clone, Debug)]
pub(super) struct Answer<T> {
    /// As the host wrote it.
    pub(super) json: String,
    pub(super) value: T,
}
