//! Making a cluster: its directory, its settings, its server's environment.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::host::{bindir_of, free_port, run, server_bindir};
use super::{place, Cluster, SUPERUSER};

/// Prepares the directory of a cluster and names the variables its server sees.
type Environment = fn(&Path) -> Vec<(String, String)>;

pub struct Builder {
    name: String,
    settings: Vec<(String, String)>,
    environment: Option<Environment>,
    bindir: Option<PathBuf>,
    is_durable: bool,
}

impl Builder {
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            settings: Vec::new(),
            environment: None,
            bindir: None,
            is_durable: false,
        }
    }

    /// A line of postgresql.conf; a later one for the same name wins.
    pub fn set(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Clusters forgo fsync and a disk unless a test is about what survives a crash.
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self.set("fsync", "on")
    }

    /// Variables for the server, made once its directory is there.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// With the server of another pg_config.
    pub fn server(mut self, pg_config: &OsStr) -> Self {
        self.bindir = Some(bindir_of(pg_config));
        self
    }

    pub fn start(self) -> Cluster {
        // What prepares a directory may put a library there, and memory may be mounted noexec.
        let place = if self.is_durable || self.environment.is_some() {
            env::temp_dir()
        } else {
            place::fast().to_owned()
        };
        let directory = place::new_directory(&place, &self.name);
        let environment = self.environment.map(|prepare| prepare(&directory));
        let cluster = Cluster {
            directory,
            port: free_port(),
            bindir: self.bindir.unwrap_or_else(server_bindir),
            environment: environment.unwrap_or_default(),
            exemption: OnceLock::new(),
        };
        copy_template(&cluster);
        cluster.settle(&self.settings);
        cluster.start_again();
        cluster
    }
}

impl Cluster {
    /// A running hot standby of this cluster, with its settings.
    pub fn follow(&self, name: &str) -> Self {
        let standby = self.base_backup(name, &["--write-recovery-conf"]);
        standby.start_again();
        standby
    }

    /// The same through a physical replication slot, which is made here; with these settings
    /// of its own.
    pub fn follow_through(&self, slot: &str, settings: &[(&str, &str)]) -> Self {
        self.sql(&format!(
            "select pg_create_physical_replication_slot('{slot}')"
        ));
        let standby = self.base_backup(slot, &["--write-recovery-conf", "--slot", slot]);
        for (name, value) in settings {
            standby.configure(name, value);
        }
        standby.start_again();
        standby
    }

    /// A base backup of this cluster, not started yet.
    pub fn base_backup(&self, name: &str, options: &[&str]) -> Self {
        let copy = Self {
            directory: place::new_directory(place::fast(), name),
            port: free_port(),
            bindir: self.bindir.clone(),
            environment: self.environment.clone(),
            exemption: OnceLock::new(),
        };
        run(self
            .server_program("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync"])
            .arg(format!("--host={}", self.directory.display()))
            .args(["--port", &self.port.to_string(), "--username", SUPERUSER])
            .args(options)
            .arg("--pgdata")
            .arg(copy.data_directory()));
        copy.listen_in_its_directory();
        copy
    }

    /// This cluster, which must be stopped, moved by pg_upgrade to the server that is tested;
    /// the new cluster has these settings.
    pub fn upgrade(&self, name: &str, settings: &[(&str, &str)]) -> Self {
        let upgraded = Self {
            directory: place::new_directory(place::fast(), name),
            port: free_port(),
            bindir: server_bindir(),
            environment: self.environment.clone(),
            exemption: OnceLock::new(),
        };
        let help = run(upgraded.server_program("initdb").arg("--help"));
        // Old and new cluster must agree; newer versions have checksums unless told otherwise.
        let no_checksums = "--no-data-checksums";
        let knows = String::from_utf8_lossy(&help.stdout).contains(no_checksums);
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let options: &[&str] = if knows { &[no_checksums] } else { &[] };
        upgraded.init(options);
        upgraded.settle(&settings);
        run(upgraded
            .server_program("pg_upgrade")
            .current_dir(&upgraded.directory)
            .args(["--username", SUPERUSER, "--old-bindir"])
            .arg(&self.bindir)
            .arg("--new-bindir")
            .arg(&upgraded.bindir)
            .arg("--old-datadir")
            .arg(self.data_directory())
            .arg("--new-datadir")
            .arg(upgraded.data_directory()));
        upgraded.start_again();
        upgraded
    }

    fn listen_in_its_directory(&self) {
        self.configure("port", &self.port.to_string());
        self.configure(
            "unix_socket_directories",
            &self.directory.display().to_string(),
        );
    }

    /// A data directory as initdb makes it.
    fn init(&self, options: &[&str]) {
        run(self
            .server_program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--locale=C.UTF-8",
                "--encoding=UTF8",
            ])
            .args(options)
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pgdata")
            .arg(self.data_directory()));
    }

    /// Settings that each cluster has, and its own.
    fn settle(&self, settings: &[(String, String)]) {
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("fsync", "off"),
            ("log_line_prefix", "%m [%p] %b "),
        ];
        for (name, value) in own {
            self.configure(name, value);
        }
        self.listen_in_its_directory();
        for (name, value) in settings {
            self.configure(name, value);
        }
    }
}

/// Gives a cluster the data directory that initdb has made once for its server: a copy takes a tenth of a second, and
/// initdb two of a processor. All clusters so made have one system identifier.
fn copy_template(cluster: &Cluster) {
    static TEMPLATES: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = templates.iter().position(|t| t.bindir == cluster.bindir);
    let index = known.unwrap_or_else(|| {
        let template = Cluster {
            directory: place::new_directory(place::fast(), "template"),
            port: 0,
            bindir: cluster.bindir.clone(),
            environment: Vec::new(),
            exemption: OnceLock::new(),
        };
        template.init(&[]);
        templates.push(template);
        templates.len() - 1
    });
    let source = templates[index].data_directory();
    drop(templates);
    run(cluster
        .shell_as_server("cp -a \"$0\" \"$1\"")
        .arg(source)
        .arg(cluster.data_directory()));
}
