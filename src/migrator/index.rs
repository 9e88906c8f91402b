//! `CREATE` and `DROP INDEX CONCURRENTLY`, fenced by name.
//!
//! What runs outside a transaction cannot check the lease while it runs. So an index is built under a name that
//! carries the driver's token, and gets its own name in a fenced transaction, once it is valid; a driver that
//! lost the lease leaves at most a remnant under a name of ours, which the next one drops.

use std::time::{Duration, Instant};

use sha2::Digest as _;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::connect::{Sql as _, get, text};
use super::ledger::At;
use super::locks::Tries;
use super::steps::Outcome;
use super::transaction::Timeouts;
use super::worker::Worker;
use crate::catalog::alike;
use crate::error::{Error, Kind, Result};
use crate::ident::quote;
use crate::step::{BuildIndex, DropIndex, Step};

/// An index as the catalog shows it.
#[derive(Debug)]
struct Found {
    name: String,
    table: String,
    valid: bool,
    unique: bool,
    building: bool,
    tail: String,
}

/// What all remnants of an index are named, up to the token.
fn prefix(name: &str) -> String {
    let digest = sha2::Sha256::digest(name.as_bytes());
    let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("pw_{hash}_")
}

impl Worker<'_> {
    pub(super) async fn build_index(&self, at: At<'_>, step: &Step, build: &BuildIndex) -> Result<Outcome> {
        let temporary = format!("{}{}", prefix(&build.name), self.lease.token);
        let mut tries = Tries::new(self.migrator, &step.summary).untimed();
        let mut ran = false;
        loop {
            // First what earlier tries left: never accept it, never collide with it.
            let found = self.settle(at, &build.schema, &build.name).await?;
            let same = |index: &Found| {
                index.valid
                    && index.table == build.table
                    && index.unique == build.unique
                    && alike(&index.tail, &build.tail)
            };
            let mut adopted = None;
            for index in &found {
                if index.name == build.name {
                    if same(index) {
                        continue;
                    }
                    if index.valid {
                        return Err(conflict(at, build, index));
                    }
                    self.bury(at, &build.schema, &build.name).await?;
                } else if same(index)
                    && adopted.is_none()
                    && !found.iter().any(|other| other.name == build.name)
                {
                    // Built to its end, and interrupted just before it got its name.
                    adopted = Some(index.name.clone());
                } else {
                    self.drop_remnant(at, &build.schema, &index.name).await?;
                }
            }
            if found.iter().any(|index| index.name == build.name && same(index)) {
                return Ok(Outcome { ran, rows: 0 });
            }
            if found.iter().any(|index| index.name == build.name) {
                // It was buried: look again.
                continue;
            }
            if let Some(remnant) = adopted {
                if self.give_name(at, build, &remnant).await? {
                    return Ok(Outcome { ran: true, rows: 0 });
                }
                continue;
            }
            self.name_is_free(at, build).await?;
            ran = true;
            let sql = format!(
                "CREATE {}INDEX CONCURRENTLY {} ON {}.{} USING {}",
                if build.unique { "UNIQUE " } else { "" },
                quote(&temporary),
                quote(&build.schema),
                quote(&build.table),
                build.tail
            );
            self.fence().await?;
            let run = self.statement(at, &sql);
            match self.watch(&mut tries, Duration::from_secs(2), run).await {
                Ok(()) => match self.give_name(at, build, &temporary).await {
                    Ok(true) => return Ok(Outcome { ran, rows: 0 }),
                    Ok(false) => {}
                    Err(error) => return Err(self.disowned(build, &temporary, error).await),
                },
                Err(error) => {
                    let Err(error) = self.again(&mut tries, at, error).await else { continue };
                    let error = self.disowned(build, &temporary, error).await;
                    // Not valid, and yet maintained by every write: worth one try to be rid of it now.
                    if error.kind() != Kind::Connection && error.kind() != Kind::LeaseLost {
                        if let Err(left) = self.drop_remnant(at, &build.schema, &temporary).await {
                            tracing::warn!(target: "phasewise", error = %left, "an invalid index was left; the next run drops it");
                        }
                    }
                    return Err(not_built(at, build, error));
                }
            }
        }
    }

    pub(super) async fn drop_index(&self, at: At<'_>, _step: &Step, drop: &DropIndex) -> Result<Outcome> {
        let found = self.settle(at, &drop.schema, &drop.name).await?;
        if found.iter().any(|index| index.name == drop.name) {
            self.bury(at, &drop.schema, &drop.name).await?;
        }
        for index in found.iter().filter(|index| index.name != drop.name) {
            self.drop_remnant(at, &drop.schema, &index.name).await?;
        }
        Ok(Outcome { ran: !found.is_empty(), rows: 0 })
    }

    /// The index of that name and all remnants of it, once nobody builds one of them any more.
    async fn settle(&self, at: At<'_>, schema: &str, name: &str) -> Result<Vec<Found>> {
        let begun = Instant::now();
        loop {
            let found = self.remnants(schema, name).await?;
            let Some(building) = found.iter().find(|index| index.building) else { return Ok(found) };
            if begun.elapsed() >= self.migrator.lock_deadline {
                return Err(Error::new(
                    Kind::Locked,
                    format!(
                        "migration {}, phase {}: another session is still building index {}.{} (see pg_stat_progress_create_index): wait for it, or end it with pg_cancel_backend, then run again",
                        at.migration,
                        at.phase,
                        quote(schema),
                        quote(&building.name)
                    ),
                ));
            }
            sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        }
    }

    async fn remnants(&self, schema: &str, name: &str) -> Result<Vec<Found>> {
        // A row of pg_stat_progress_create_index that this role may not read has no index_relid: it may be any.
        let rows = self
            .session
            .ask(
                "SELECT c.relname::text AS name, t.relname::text AS tab, i.indisvalid AS valid, i.indisunique AS uniq,
                        NOT i.indisvalid AND EXISTS (
                            SELECT FROM pg_catalog.pg_stat_progress_create_index p
                             WHERE p.datname = current_database() AND coalesce(p.index_relid = c.oid, true)
                        ) AS building,
                        substr(pg_catalog.pg_get_indexdef(c.oid), length(format(
                            'CREATE %sINDEX %I ON %s%I.%I USING ',
                            CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname,
                            CASE WHEN c.relkind = 'I' THEN 'ONLY ' ELSE '' END, tn.nspname, t.relname)) + 1) AS tail
                   FROM pg_catalog.pg_index i
                   JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
                   JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
                  WHERE n.nspname = $1 AND (c.relname = $2 OR starts_with(c.relname, $3))
                  ORDER BY c.relname",
                &[text(&schema), text(&name), text(&prefix(name))],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Found {
                    name: get(row, "name")?,
                    table: get(row, "tab")?,
                    valid: get(row, "valid")?,
                    unique: get(row, "uniq")?,
                    building: get(row, "building")?,
                    tail: get(row, "tail")?,
                })
            })
            .collect()
    }

    async fn name_is_free(&self, at: At<'_>, build: &BuildIndex) -> Result<()> {
        let rows = self
            .session
            .ask(
                "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = $1 AND c.relname = $2",
                &[text(&build.schema), text(&build.name)],
            )
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "migration {}, phase {}: a relation {}.{} exists already and is no such index: give the index another name",
                at.migration,
                at.phase,
                quote(&build.schema),
                quote(&build.name)
            ),
        ))
    }

    /// Renames under the fence, and drops what was renamed.
    async fn bury(&self, at: At<'_>, schema: &str, name: &str) -> Result<()> {
        let grave = format!("{}{}x", prefix(name), self.lease.token);
        let sql = format!("ALTER INDEX {}.{} RENAME TO {}", quote(schema), quote(name), quote(&grave));
        self.rename(at, &sql).await?;
        self.drop_remnant(at, schema, &grave).await
    }

    /// After an error: a driver that has lost the lease meanwhile drops what it was building, for the next one may have
    /// passed this step before that was there, and will never look here again. The name is this driver's alone.
    async fn disowned(&self, build: &BuildIndex, temporary: &str, error: Error) -> Error {
        if error.kind() == Kind::LeaseLost {
            let name = format!("{}.{}", quote(&build.schema), quote(temporary));
            let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
            if let Err(left) = self.session.send("dropping an index of a lost lease", &sql).await {
                tracing::warn!(target: "phasewise", error = %left, index = name, "an index was left; drop it");
            }
        }
        error
    }

    async fn drop_remnant(&self, at: At<'_>, schema: &str, name: &str) -> Result<()> {
        let sql = format!("DROP INDEX CONCURRENTLY IF EXISTS {}.{}", quote(schema), quote(name));
        self.autocommit(at, "drop an index concurrently", &sql).await
    }

    /// `false` if there is none of that name any more: the driver that built it has lost the lease, and dropped it.
    async fn give_name(&self, at: At<'_>, build: &BuildIndex, from: &str) -> Result<bool> {
        let sql =
            format!("ALTER INDEX {}.{} RENAME TO {}", quote(&build.schema), quote(from), quote(&build.name));
        // Said first: another driver may have named it or dropped it already.
        self.fence().await?;
        let found = self.remnants(&build.schema, &build.name).await?;
        match found.iter().find(|index| index.name == from) {
            Some(index) if index.valid && alike(&index.tail, &build.tail) && index.unique == build.unique => {
                match self.rename(at, &sql).await {
                    Err(error) if error.own_code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
                    renamed => renamed.map(|()| true),
                }
            }
            None => Ok(false),
            Some(index) if index.valid => Err(conflict(at, build, index)),
            Some(_) => Err(Error::new(
                Kind::Step,
                format!(
                    "migration {}, phase {}: index {} was built and is not valid: somebody interfered; run again, it is built anew",
                    at.migration,
                    at.phase,
                    quote(&build.name)
                ),
            )),
        }
    }

    /// A rename locks the index only, and briefly.
    async fn rename(&self, at: At<'_>, sql: &str) -> Result<()> {
        let mut tries = Tries::new(self.migrator, "rename an index");
        loop {
            let budget = self.migrator.stall_budget;
            let timeouts = Timeouts {
                lock: tries.timeout(),
                statement: Some(budget),
                idle: budget.max(Duration::from_millis(500)),
            };
            let attempt = async {
                self.begin(timeouts).await?;
                let renamed = self.statement(at, sql).await;
                self.finish(renamed).await
            };
            match self.watch(&mut tries, timeouts.lock, attempt).await {
                Ok(()) => return Ok(()),
                Err(error) => self.again(&mut tries, at, error).await?,
            }
        }
    }
}

/// Duplicates are the one failure that the rows are to blame for.
fn not_built(at: At<'_>, build: &BuildIndex, error: Error) -> Error {
    if error.own_code() != Some(&SqlState::UNIQUE_VIOLATION) {
        return error;
    }
    Error::new(
        Kind::Step,
        format!(
            "{error}. Unique index {} cannot be built while rows of {}.{} share a key: remove or change the duplicates, then run again; migration {} resumes here",
            quote(&build.name),
            quote(&build.schema),
            quote(&build.table),
            at.migration
        ),
    )
    .with_source(error)
}

fn conflict(at: At<'_>, build: &BuildIndex, found: &Found) -> Error {
    let describe = |unique: bool, tail: &str| format!("{}USING {tail}", if unique { "UNIQUE " } else { "" });
    Error::new(
        Kind::Conflict,
        format!(
            "migration {}, phase {}: index {}.{} exists with another definition: on {} {}, wanted on {} {}. Rename or drop it, or give the new index another name",
            at.migration,
            at.phase,
            quote(&build.schema),
            quote(&build.name),
            quote(&found.table),
            describe(found.unique, &found.tail),
            quote(&build.table),
            describe(build.unique, &build.tail)
        ),
    )
}
