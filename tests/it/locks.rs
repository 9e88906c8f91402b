//! x
pub(crate) async fn compare(_case: &'static crate::harness::Case) {}
