//! The application: what it asks of the database, release by release.
//!
//! Read it as a reviewer reads deploys: each release is the one before, with the lines that the deploy changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use phasewise::testing::{Failed, Session};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use crate::model::{Model, User, email, team};

/// One release, counted for the migration that it is part of: its SQL. Columns are always listed, never `*`: a prepared `SELECT *` breaks when a column is added.
#[derive(Debug)]
pub struct Release {
    pub of: &'static str,
    pub number: u16,
    read: &'static str,
    find: &'static str,
    insert: &'static str,
    rename: &'static str,
    pay: &'static str,
    delete: &'static str,
    amount: Amount,
}

/// users.name becomes users.full_name, in three deploys.
pub mod full_name {
    use super::{Amount, Release};

    /// Knows nothing of it.
    pub static RELEASE_0: Release = OLD;
    /// Writes both, reads the old one.
    pub static RELEASE_1: Release = WRITES_BOTH;
    /// Writes both, reads the new one.
    pub static RELEASE_2: Release = READS_NEW;
    /// Uses the new one only.
    pub static RELEASE_3: Release = NEW;

    const OLD: Release = Release {
        of: "full_name",
        number: 0,
        read: "SELECT name, email, amount FROM users WHERE id = $1",
        find: "SELECT id FROM users WHERE team_id = $1 AND name = $2",
        insert: "INSERT INTO users (id, team_id, email, amount, name) VALUES ($1, $2, $3, $4, $5)",
        rename: "UPDATE users SET name = $2 WHERE id = $1",
        pay: "UPDATE users SET amount = $2 WHERE id = $1",
        delete: "DELETE FROM users WHERE id = $1",
        amount: Amount::Int,
    };

    const WRITES_BOTH: Release = Release {
        number: 1,
        insert: "INSERT INTO users (id, team_id, email, amount, name, full_name) VALUES ($1, $2, $3, $4, $5, $5)",
        rename: "UPDATE users SET name = $2, full_name = $2 WHERE id = $1",
        ..OLD
    };

    const READS_NEW: Release = Release {
        number: 2,
        read: "SELECT full_name, email, amount FROM users WHERE id = $1",
        find: "SELECT id FROM users WHERE team_id = $1 AND full_name = $2",
        ..WRITES_BOTH
    };

    pub(super) const NEW: Release = Release {
        number: 3,
        insert: "INSERT INTO users (id, team_id, email, amount, full_name) VALUES ($1, $2, $3, $4, $5)",
        rename: "UPDATE users SET full_name = $2 WHERE id = $1",
        ..READS_NEW
    };
}

/// users.amount (int) becomes users.amount_big (bigint), in one deploy: triggers keep both columns equal.
pub mod amount_big {
    use super::{Amount, Release, full_name};

    /// Knows nothing of it. It is the build that the first migration ended with.
    pub static RELEASE_0: Release = Release { of: "amount_big", number: 0, ..full_name::NEW };

    /// Uses the new one only.
    pub static RELEASE_1: Release = Release {
        of: "amount_big",
        number: 1,
        read: "SELECT full_name, email, amount_big FROM users WHERE id = $1",
        insert: "INSERT INTO users (id, team_id, email, amount_big, full_name) VALUES ($1, $2, $3, $4, $5)",
        pay: "UPDATE users SET amount_big = $2 WHERE id = $1",
        amount: Amount::Bigint,
        ..full_name::NEW
    };
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} release {}", self.of, self.number)
    }
}

/// The type that a release takes amounts for.
#[derive(Clone, Copy, Debug)]
enum Amount {
    Int,
    Bigint,
}

impl Amount {
    fn parameter(self, amount: i32) -> Box<dyn ToSql + Send + Sync> {
        match self {
            Self::Int => Box::new(amount),
            Self::Bigint => Box::new(i64::from(amount)),
        }
    }

    fn of(self, row: &Row, column: usize) -> Result<i64, Error> {
        match self {
            Self::Int => row.try_get::<_, i32>(column).map(i64::from),
            Self::Bigint => row.try_get(column),
        }
    }
}

/// Between two requests a client rests this long.
const REST: Duration = Duration::from_millis(4);

/// One client of a release: reads, inserts, updates and deletes until it is told to stop.
pub async fn serve(session: Session, release: &'static Release, model: Arc<Model>) -> Result<(), Failed> {
    let client = Client::prepare(session, release).await?;
    while client.session.is_running() {
        let mut place = model.any().await;
        let id = place.id;
        let user = match (place.user.clone(), fastrand::u8(..100)) {
            (None, 0..50) => Some(client.insert(id, &model.new_name()).await?),
            (Some(user), 0..20) => Some(client.rename(id, user, &model.new_name()).await?),
            (Some(user), 20..35) => Some(client.pay(id, user, fastrand::i32(0..1_000_000)).await?),
            (Some(_), 35..39) => client.delete(id).await?,
            (Some(user), 39..50) => Some(client.find(id, user).await?),
            (user, _) => client.read(id, user).await?,
        };
        place.user = user;
        drop(place);
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

/// A client with its statements: prepared once, and used until the release is replaced.
struct Client {
    session: Session,
    release: &'static Release,
    read: Statement,
    find: Statement,
    insert: Statement,
    rename: Statement,
    pay: Statement,
    delete: Statement,
}

impl Client {
    async fn prepare(session: Session, release: &'static Release) -> Result<Self, Failed> {
        let prepare = |sql: &'static str| session.request(session.prepare(sql));
        Ok(Self {
            read: prepare(release.read).await?,
            find: prepare(release.find).await?,
            insert: prepare(release.insert).await?,
            rename: prepare(release.rename).await?,
            pay: prepare(release.pay).await?,
            delete: prepare(release.delete).await?,
            release,
            session,
        })
    }

    async fn insert(&self, id: i64, name: &str) -> Result<User, Failed> {
        let (email, team, amount) = (email(id), team(id), fastrand::i32(0..1_000_000));
        let paid = self.release.amount.parameter(amount);
        self.write(&self.insert, &[&id, &team, &email, &*paid, &name]).await?;
        Ok(User { name: name.to_owned(), amount: i64::from(amount), badge: false })
    }

    async fn rename(&self, id: i64, user: User, name: &str) -> Result<User, Failed> {
        self.write(&self.rename, &[&id, &name]).await?;
        Ok(User { name: name.to_owned(), ..user })
    }

    async fn pay(&self, id: i64, user: User, amount: i32) -> Result<User, Failed> {
        let paid = self.release.amount.parameter(amount);
        self.write(&self.pay, &[&id, &*paid]).await?;
        Ok(User { amount: i64::from(amount), ..user })
    }

    async fn delete(&self, id: i64) -> Result<Option<User>, Failed> {
        self.write(&self.delete, &[&id]).await?;
        Ok(None)
    }

    /// Every write is of one row; any other number means that it met a row which is not as it was left.
    async fn write(&self, statement: &Statement, parameters: &[&(dyn ToSql + Sync)]) -> Result<(), Failed> {
        let rows = self.session.request(self.session.execute(statement, parameters)).await?;
        if rows != 1 {
            self.session.stale(format!("a write met {rows} rows instead of 1"));
        }
        Ok(())
    }

    async fn find(&self, id: i64, user: User) -> Result<User, Failed> {
        let team = team(id);
        let found = self.session.request(self.session.query(&self.find, &[&team, &user.name])).await?;
        let found: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
        if found != [id] {
            self.session.stale(format!("{} is user {id}, and a search found {found:?}", user.name));
        }
        Ok(user)
    }

    async fn read(&self, id: i64, user: Option<User>) -> Result<Option<User>, Failed> {
        let release = self.release;
        let read = async {
            let row = self.session.query_opt(&self.read, &[&id]).await?;
            row.map(|row| {
                let name: String = row.try_get(0)?;
                let email: String = row.try_get(1)?;
                Ok::<_, Error>((name, email, release.amount.of(&row, 2)?))
            })
            .transpose()
        };
        let found = self.session.request(read).await?;
        let expected = user.as_ref().map(|user| (user.name.clone(), email(id), user.amount));
        if found != expected {
            self.session.stale(format!("user {id} was left as {expected:?} and read as {found:?}"));
        }
        Ok(user)
    }
}
