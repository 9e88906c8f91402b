//! Drivers that are killed, and servers that are restarted, in the midst of a backfill.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use phasewise::{Migration, Migrations, RenameColumn, migrations};
use tokio_postgres::{Config, NoTls};

use super::*;

/// Tells the process of a driver where its database is, and how large its batches are.
const URL: &str = "PHASEWISE_BACKFILL_URL";
const SIZE: &str = "PHASEWISE_BACKFILL_SIZE";

static RENAME: Migrations =
    migrations![Migration::new("rename", RenameColumn::new("t", "a", "b").kept_in_sync()).not_deployed()];

const ROWS: i64 = 30_000;
const SETUP: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, a int, pad text)",
    "INSERT INTO t SELECT i, i, repeat('x', 200) FROM generate_series(1, 30000) i",
    "CREATE TABLE writes (id int)",
    "CREATE FUNCTION count_writes() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NULL; END$$",
    "CREATE TRIGGER count_writes AFTER UPDATE ON t FOR EACH ROW
     WHEN (current_setting('phasewise.backfill', true) <> '') EXECUTE FUNCTION count_writes()",
];

fn tuned(migrator: Migrator, policy: BackfillPolicy) -> Migrator {
    migrator
        .soak(Duration::ZERO)
        .assume_fresh()
        .lock_deadline(Duration::from_secs(30))
        .lease_time(Duration::from_millis(300))
        .backfill(policy)
}

/// The other process. Started by itself it has nothing to do.
#[tokio::test]
async fn driver() {
    let Ok(url) = std::env::var(URL) else { return };
    let config: Config = url.parse().expect("a URL");
    let migrator = Migrator::connect(config, NoTls, &RENAME).observe(|event: &Event<'_>| {
        if let Event::BatchDone { .. } = event {
            println!("\nbatch");
        }
    });
    let size = std::env::var(SIZE).expect("a size").parse().expect("a number");
    let migrator = tuned(migrator, fixed(size).pause(Duration::from_millis(1)));
    if let Err(error) = migrator.run_to("rename", "Backfill").await {
        println!("\n{error}");
    }
}

/// A driver in another process, once it has done a batch.
fn driver_at_work(url: &str, size: u32) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "backfill::killed::driver", "--nocapture"])
        .env(URL, url)
        .env(SIZE, size.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    // The rest of what it says has to go somewhere.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // Nobody may listen any more: the pipe is read on.
            let _ = tell.send(line);
        }
    });
    let mut said = Vec::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(line) if line == "batch" => return child,
            Ok(line) => said.push(line),
            Err(_) => panic!("no batch was done: {said:#?}"),
        }
    }
}

/// Kills one, so long after its first batch.
async fn kill_a_driver(url: &str, size: u32, pause: Duration) {
    let url = url.to_owned();
    let killed = tokio::task::spawn_blocking(move || {
        let mut child = driver_at_work(&url, size);
        std::thread::sleep(pause);
        child.kill().expect("killed");
        child.wait().expect("gone");
    });
    killed.await.expect("killed");
}

/// Writers of either release, each with rows of its own, until told to end. Returns what they wrote.
async fn writers(database: &Database, over: &Arc<AtomicBool>) -> Vec<JoinHandle<u64>> {
    use std::sync::atomic::Ordering::SeqCst;
    let mut tasks = Vec::new();
    for seed in 0..4_u64 {
        let client = database.connect().await.expect("a connection");
        let over = Arc::clone(over);
        let column = if seed % 2 == 0 { "a" } else { "b" };
        tasks.push(tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut writes = 0;
            while !over.load(SeqCst) {
                let (id, value) = (random.i64(1..=ROWS), random.i32(..));
                let sql = match random.u8(0..4) {
                    0 => format!("INSERT INTO t (id, {column}) VALUES ({}, {value}) ON CONFLICT (id) DO UPDATE SET {column} = {value}", ROWS + id),
                    1 => format!("DELETE FROM t WHERE id = {}", ROWS + id),
                    _ => format!("UPDATE t SET {column} = {value} WHERE id = {id}"),
                };
                run(&client, &sql).await;
                writes += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            writes
        }));
    }
    tasks
}

async fn assert_ended_well(client: &Client) {
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM t WHERE a IS DISTINCT FROM b").await, 0);
    assert_eq!(one::<i64>(client, &format!("SELECT count(*) FROM t WHERE id <= {ROWS}")).await, ROWS);
    let twice = "SELECT count(*) FROM (SELECT id FROM writes GROUP BY id HAVING count(*) > 1) x";
    assert_eq!(one::<i64>(client, twice).await, 0, "rows were filled twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_drivers_are_killed_in_one_backfill() {
    let (database, client) = tables(SETUP).await;
    let url = database.url();
    let over = Arc::new(AtomicBool::new(false));
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    tuned(migrator(&database, &RENAME, fixed(25)), fixed(25))
        .run_to("rename", "InstallSync")
        .await
        .expect("in sync");
    let writers = writers(&database, &over).await;
    let done = "SELECT coalesce(sum(done), -1)::int8 FROM phasewise.backfills";
    let mut before = 0;
    for nth in 1..=50 {
        let pause = Duration::from_micros(random.u64(0..60_000));
        kill_a_driver(&url, 25, pause).await;
        let now: i64 = one(&client, done).await;
        assert!(now > before, "kill {nth} (seed {seed}): {now} rows after {before}");
        before = now;
        assert_eq!(one::<i32>(&client, "SELECT max(pass) FROM phasewise.backfills").await, 1, "seed {seed}");
    }
    let policy = fixed(1_000);
    let report = tuned(migrator(&database, &RENAME, policy), policy).run_to("rename", "Backfill").await;
    report.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer that did not fail");
    }
    assert!(written > 1_000, "{written}");
    assert_ended_well(&client).await;
}

/// Killed between the thirds of a stretch, too: what they have filled stays filled, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_are_killed_in_the_midst_of_stretches() {
    let (database, client) = tables(SETUP).await;
    let url = database.url();
    let over = Arc::new(AtomicBool::new(false));
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    tuned(migrator(&database, &RENAME, fixed(500)), fixed(500))
        .run_to("rename", "InstallSync")
        .await
        .expect("in sync");
    let writers = writers(&database, &over).await;
    for nth in 1..=12 {
        let pause = Duration::from_micros(random.u64(0..30_000));
        kill_a_driver(&url, 500, pause).await;
        let (done, most) = ("SELECT sum(done)::int8 FROM phasewise.backfills", ROWS + ROWS / 2);
        let done: i64 = one(&client, done).await;
        assert!(done <= most, "kill {nth} (seed {seed}): {done} rows");
    }
    let report =
        tuned(migrator(&database, &RENAME, fixed(500)), fixed(500)).run_to("rename", "Backfill").await;
    report.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("a writer that did not fail");
    }
    assert_ended_well(&client).await;
}

/// A server that a test may restart: those of `phasewise::testing` end for good when they end.
struct Restartable {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    /// Postgres refuses to run as root.
    user: Option<u32>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Restartable {
    async fn start() -> Self {
        let shared = own_server(&[]).await;
        let origin = shared.origin().trim_start_matches("installed server ").to_owned();
        let (binaries, _) = origin.rsplit_once(" (").expect("a version");
        let id = |args: &[&str]| {
            let said = Command::new("id").args(args).output().expect("id");
            String::from_utf8_lossy(&said.stdout).trim().parse::<u32>().ok()
        };
        let user = if id(&["-u"]) == Some(0) { id(&["-u", "postgres"]) } else { None };
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let directory = PathBuf::from(format!("/tmp/phasewise-restart-{}-{number}", std::process::id()));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port")
            .port();
        let server = Self { binaries: PathBuf::from(binaries), directory, port, user };
        server.command("initdb", &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        server.control("start", &[]);
        server
    }

    fn command(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(self.binaries.join(program));
        command.arg("-D").arg(self.directory.join("data")).args(args).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/tmp").env("LC_ALL", "C");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let ended = command.status().expect("a program of Postgres");
        assert!(ended.success(), "{program} {args:?}");
    }

    fn control(&self, what: &str, args: &[&str]) {
        let options = format!("-p {} -k '' -h 127.0.0.1 -c fsync=off -c wal_writer_delay=10ms", self.port);
        let log = format!("{}.log", self.directory.display());
        self.command("pg_ctl", &[&[what, "-w", "-o", &options, "-l", &log], args].concat());
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config
    }

    async fn connect(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client
    }
}

impl Drop for Restartable {
    fn drop(&mut self) {
        let mut command = Command::new(self.binaries.join("pg_ctl"));
        command.arg("-D").arg(self.directory.join("data")).args(["stop", "-m", "immediate", "-w"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/tmp");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let _ = command.status();
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = std::fs::remove_file(format!("{}.log", self.directory.display()));
    }
}

/// The same run goes on when the server is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_restarted_in_the_midst_of_it() {
    let server = Restartable::start().await;
    let client = server.connect().await;
    for sql in SETUP {
        run(&client, sql).await;
    }
    let migrator = Migrator::connect(server.config(), NoTls, &RENAME).assume_fresh().soak(Duration::ZERO);
    let (migrator, mut ears) = ears(migrator.backfill(fixed(100).pause(Duration::from_millis(5)).workers(2)));
    let running = filling(migrator);
    let mut heard = Vec::new();
    for (at, mode) in [(1_000, "immediate"), (4_000, "fast")] {
        heard.extend(batches(&ears.until(|heard| heard.batch().is_some_and(|batch| batch.done >= at)).await));
        server.control("restart", &["-m", mode]);
    }
    let (_, rest) = tokio::join!(filled(running), ears.rest());
    heard.extend(batches(&rest));
    for part in 0..2 {
        let done: Vec<u64> =
            heard.iter().filter(|batch| batch.part == part).map(|batch| batch.done).collect();
        // What was committed in the last moments before a crash is undone, the cursor with the rows.
        assert!(done.windows(2).all(|two| two[1] * 2 > two[0]), "part {part} began again: {done:?}");
    }
    assert_ended_well(&server.connect().await).await;
}
