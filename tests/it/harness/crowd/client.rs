//! What one client does all day.

use std::sync::atomic::Ordering;

use super::speaker::Speaker;
use super::{Leaves, Model, ROWS, Release, Shared};

/// A generator of our own: the same run every time, as far as scheduling allows.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn row(&mut self) -> usize {
        usize::try_from(self.next() % ROWS as u64).expect("small")
    }
}

impl Shared {
    pub(super) async fn client(&self, mut speaker: Speaker, number: u64) {
        let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        while !self.over.load(Ordering::SeqCst) {
            let live = self.live.read().await;
            let release =
                live.lo + u16::try_from(dice.next() % u64::from(live.hi - live.lo + 1)).expect("small");
            let storm = self.fire.storm.as_ref().filter(|_| self.fertile.load(Ordering::SeqCst));
            let done = match storm {
                Some(key) if dice.next() % 3 == 0 => self.blow(&mut speaker, release, key, &mut dice).await,
                _ => {
                    let done = if speaker.transacts {
                        self.transaction(&mut speaker, release, &mut dice).await
                    } else {
                        let row = dice.row();
                        let mut model = self.rows[row].lock().await;
                        self.statement(&mut speaker, release, row, &mut model, &mut dice).await
                    };
                    self.counts[usize::from(release)].fetch_add(1, Ordering::SeqCst);
                    done
                }
            };
            if let Err(wrong) = done {
                self.wrong.lock().expect("not poisoned").push(wrong);
                self.over.store(true, Ordering::SeqCst);
            }
            drop(live);
            self.moved.notify_waiters();
            tokio::task::yield_now().await;
        }
    }

    /// A write that waits for no other.
    async fn blow(
        &self,
        speaker: &mut Speaker,
        release: u16,
        key: &str,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let (choice, number) = (dice.next(), dice.next());
        let id = (ROWS as u64 + number % 2).to_string();
        let speaks = self.speaks(release);
        let sql = match choice % 6 {
            0 => &format!("{} ON CONFLICT ({key}) DO NOTHING", speaks.insert.0),
            1 if !speaks.delete.is_empty() => &speaks.delete,
            2 => &speaks.touch,
            _ => &speaks.update.0,
        };
        let done = speaker.ask(sql, &id, &(self.fire.value)(release, number)).await;
        done.map(drop).map_err(|error| format!("release {release} failed: {error:?}: {sql}"))
    }

    /// Writes to two rows that are read back, and at times never happened.
    async fn transaction(&self, speaker: &mut Speaker, release: u16, dice: &mut Dice) -> Result<(), String> {
        let mut rows = vec![dice.row(), dice.row()];
        // In one order, as an application that has no deadlocks of its own.
        rows.sort_unstable();
        rows.dedup();
        let mut models = Vec::new();
        for row in &rows {
            models.push(self.rows[*row].lock().await);
        }
        let failed = |error| format!("release {release} failed: {error:?}");
        let mut drafts: Vec<Model> = models.iter().map(|model| (**model).clone()).collect();
        speaker.say("BEGIN").await.map_err(failed)?;
        for (row, draft) in rows.iter().zip(&mut drafts) {
            self.statement(speaker, release, *row, draft, dice).await?;
            self.read(speaker, release, *row, draft).await?;
        }
        if dice.next() % 3 == 0 {
            return speaker.say("ROLLBACK").await.map_err(failed);
        }
        speaker.say("COMMIT").await.map_err(failed)?;
        for (model, draft) in models.iter_mut().zip(drafts) {
            **model = draft;
        }
        Ok(())
    }

    async fn statement(
        &self,
        speaker: &mut Speaker,
        release: u16,
        row: usize,
        model: &mut Model,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let (choice, number) = (dice.next(), dice.next());
        let value = (self.fire.value)(release, number);
        let speaks = self.speaks(release);
        let comes = model.is_none() && self.fertile.load(Ordering::SeqCst);
        let (sql, after) = match choice % 8 {
            5.. if !speaks.read.is_empty() => return self.read(speaker, release, row, model).await,
            _ if comes => (&speaks.insert.0, Some(speaks.insert.1)),
            0 if !speaks.delete.is_empty() => (&speaks.delete, None),
            1 => (&speaks.touch, Some(Leaves::Untouched)),
            _ => (&speaks.update.0, Some(speaks.update.1)),
        };
        let expected = usize::from(comes || model.is_some());
        let rows = speaker.ask(&format!("{sql} RETURNING 1"), &row.to_string(), &value).await;
        let rows = rows.map_err(|error| format!("release {release} failed: {error:?}: {sql}"))?;
        if rows.len() != expected {
            return Err(format!("release {release} wrote {} rows, not {expected}: {sql}", rows.len()));
        }
        if expected == 1 {
            *model = after.map(|leaves| match leaves {
                Leaves::Written => Some(value),
                Leaves::Untouched => model.take().flatten(),
                Leaves::Value(fixed) => Some(fixed.to_owned()),
            });
        }
        Ok(())
    }

    async fn read(
        &self,
        speaker: &mut Speaker,
        release: u16,
        row: usize,
        model: &Model,
    ) -> Result<(), String> {
        let sql = &self.speaks(release).read;
        if sql.is_empty() {
            return Ok(());
        }
        let rows = speaker.ask(sql, &row.to_string(), "").await;
        let rows = rows.map_err(|error| format!("release {release} failed: {error:?}: {sql}"))?;
        let found: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
        let sees =
            |value: &Option<String>| value.as_deref().and_then(|value| (self.fire.sees)(release, value));
        let expected: Vec<Option<String>> = model.iter().map(sees).collect();
        if found != expected {
            return Err(format!("release {release} read {found:?}, not {expected:?} of {model:?}: {sql}"));
        }
        Ok(())
    }

    fn speaks(&self, release: u16) -> &Release {
        &self.fire.releases[usize::from(release)]
    }
}
