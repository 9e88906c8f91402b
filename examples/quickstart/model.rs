//! What was last written, row by row: every answer of the database is compared with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Rows that are loaded before the application starts.
pub const ROWS: i64 = 200_000;

/// The application works on each hundredth of them, all over the table …
const EVERY: i64 = 100;

/// … and on as many new ones.
const NEW: i64 = 500;

/// Users are spread over as many teams; a name is unique within one.
pub const TEAMS: i64 = 128;

/// The rows that the application works on. All releases work on the same ones, so that each reads what the others
/// wrote; a row is locked here for the length of a request, so that what was last written is never in doubt.
#[derive(Debug)]
pub struct Model {
    places: Vec<Mutex<Place>>,
    names: AtomicU64,
}

/// One row, or room for one.
#[derive(Clone, Debug)]
pub struct Place {
    pub id: i64,
    pub user: Option<User>,
}

/// A user, as last written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub amount: i64,
    /// Whether there is a badge with the name on it.
    pub badge: bool,
}

impl Place {
    /// As the row is loaded before the application starts.
    fn loaded(id: i64) -> Self {
        let badge = id % EVERY == 1;
        Self { id, user: Some(User { name: format!("User {id}"), amount: id % 1_000, badge }) }
    }
}

/// The user's team: never changes.
pub fn team(id: i64) -> i32 {
    (id % TEAMS) as i32
}

/// The user's address: never changes.
pub fn email(id: i64) -> String {
    format!("user{id}@example.com")
}

impl Model {
    pub fn new() -> Self {
        let loaded = (0..ROWS / EVERY).map(|n| Place::loaded(n * EVERY + 1));
        let room = (1..=NEW).map(|n| Place { id: ROWS + n, user: None });
        Self { places: loaded.chain(room).map(Mutex::new).collect(), names: AtomicU64::new(1) }
    }

    /// Any row.
    pub async fn any(&self) -> MutexGuard<'_, Place> {
        self.places[fastrand::usize(..self.places.len())].lock().await
    }

    /// A name that nobody had yet.
    pub fn new_name(&self) -> String {
        format!("Ada {}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The whole table as it must be, by id.
    pub async fn table(&self) -> HashMap<i64, User> {
        let mut table: HashMap<i64, User> =
            (1..=ROWS).filter_map(|id| Some((id, Place::loaded(id).user?))).collect();
        for place in &self.places {
            let place = place.lock().await;
            match &place.user {
                Some(user) => table.insert(place.id, user.clone()),
                None => table.remove(&place.id),
            };
        }
        table
    }
}
