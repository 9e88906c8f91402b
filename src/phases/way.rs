//! Whether what is dropped is renamed away first.

/// Dropped from where it is.
#[derive(Clone, Copy, Debug)]
pub struct Direct;

/// Renamed away first, so that whoever still uses it fails while the way back is instant.
#[derive(Clone, Copy, Debug)]
pub struct Quarantined;

/// [`Direct`] or [`Quarantined`]. Sealed.
pub trait Way: Copy + Send + Sync + std::fmt::Debug + sealed::Sealed + 'static {}

impl Way for Direct {}
impl Way for Quarantined {}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Direct {}
    impl Sealed for super::Quarantined {}
}
