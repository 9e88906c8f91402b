//! Plans: what the migrator would do, as data.

use serde::Serialize;

/// The steps that are still to be done, in order.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Plan {}
