//! A server in a container.

use super::settings::Settings;
use super::{Server, StartError};

#[cfg(not(feature = "docker"))]
pub(super) async fn start(_: &Settings) -> Result<Server, StartError> {
    Err(StartError::new("phasewise was built without its feature `docker`"))
}

#[cfg(feature = "docker")]
pub(super) async fn start(settings: &Settings) -> Result<Server, StartError> {
    container::start(settings).await
}

#[cfg(feature = "docker")]
mod container {
    use std::io;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use testcontainers::core::IntoContainerPort;
    use testcontainers::runners::AsyncRunner;
    use testcontainers::{ContainerAsync, GenericImage, ImageExt};
    use tokio_postgres::Config;

    use crate::testing::builder::variable;
    use crate::testing::connect::{connect, version};
    use crate::testing::settings::Settings;
    use crate::testing::tail::tail;
    use crate::testing::url::PORT;
    use crate::testing::watchdog::Watchdog;
    use crate::testing::{Server, StartError};

    const IMAGE: &str = "postgres:17-alpine";
    const DEADLINE: Duration = Duration::from_secs(120);
    const PAUSE: Duration = Duration::from_millis(50);

    pub(super) async fn start(settings: &Settings) -> Result<Server, StartError> {
        let name = format!("phasewise-{:016x}", fastrand::u64(..));
        // Before there is a container, so that none can be left over.
        let watched = name.clone();
        let watchdog = tokio::task::spawn_blocking(move || watch(&watched))
            .await
            .map_err(io::Error::other)
            .and_then(|watchdog| watchdog)
            .map_err(|error| StartError::because("cannot see to the container's end", &error))?;

        let image = variable("PHASEWISE_POSTGRES_IMAGE").unwrap_or_else(|| IMAGE.to_owned());
        let password = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let container = run(&image, &name, &password, settings)
            .await
            .map_err(|error| StartError::because(format!("cannot run the image {image}"), &error))?;
        let mut config = Config::new();
        config.user("postgres").password(password).dbname("postgres");
        let answered = wait(&container, &mut config).await;
        // The container's own destructor needs the runtime that it was made on, and panics without. The
        // watchdog removes the container, from anywhere.
        std::mem::forget(container);
        let version = answered
            .map_err(|error| StartError::because(format!("the image {image} does not answer"), &error))?;
        Ok(Server::new(config, format!("Docker image {image} ({version})"), Some(watchdog)))
    }

    /// Sees to it that the container ends with this process.
    fn watch(name: &str) -> io::Result<Watchdog> {
        let tools = ["-c", "command -v docker || command -v curl"];
        let found = Command::new("sh").args(tools).stdin(Stdio::null()).output()?;
        if !found.status.success() {
            return Err(io::Error::other("that takes the `docker` command or `curl`"));
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(include_str!("docker.sh")).arg("phasewise").arg(name);
        Watchdog::spawn(command)
    }

    async fn run(
        image: &str,
        name: &str,
        password: &str,
        settings: &Settings,
    ) -> Result<ContainerAsync<GenericImage>, testcontainers::TestcontainersError> {
        // A colon before the last slash belongs to a registry's port.
        let (repository, tag) = match image.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (image, "latest"),
        };
        let arguments = std::iter::once("postgres".to_owned()).chain(settings.arguments());
        GenericImage::new(repository, tag)
            .with_exposed_port(PORT.tcp())
            // Unlike trust, as Docker publishes ports on every interface.
            .with_env_var("POSTGRES_PASSWORD", password)
            .with_container_name(name)
            .with_cmd(arguments)
            .start()
            .await
    }

    /// Waits for the server to answer, and returns its version. While the official image sets up its data, its
    /// server listens inside the container only, so the first answer is the real one.
    async fn wait(
        container: &ContainerAsync<GenericImage>,
        config: &mut Config,
    ) -> Result<String, StartError> {
        let lost = |error| StartError::because("cannot ask Docker about the container", &error);
        let host = container.get_host().await.map_err(lost)?;
        let port = container.get_host_port_ipv4(PORT.tcp()).await.map_err(lost)?;
        config.host(host.to_string()).port(port);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let error = match connect(config).await {
                Ok(client) => return version(&client).await,
                Err(error) => error,
            };
            if !container.is_running().await.map_err(lost)? || Instant::now() > deadline {
                let log = container.stderr_to_vec().await.unwrap_or_default();
                return Err(StartError::new(format!("{error}\n{}", tail(&log))));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
