//! Where everything lies below the data folder. The one place that names files, so that two instances with two data
//! folders share nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The default data folder.
pub const DATA: &str = "/var/lib/evenkeel";
/// Where the administrator's kubeconfig of the default instance lies.
pub const KUBECONFIG: &str = "/etc/evenkeel/kubeconfig.yaml";

/// In the keeper's folder.
pub const CLUSTER_SETTINGS: &str = "settings.json";

/// All paths of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data: PathBuf,
}

// === impl Layout ===

impl Layout {
    pub fn new(data: impl Into<PathBuf>) -> Layout {
        Layout { data: data.into() }
    }

    /// Makes the folders of a server and its node. What is secret in them is not for others to list.
    pub fn make(&self) -> io::Result<()> {
        for folder in [self.server().join("db"), self.server().join("audit"), self.manifests(), self.images()] {
            fs::create_dir_all(folder)?;
        }
        fs::set_permissions(self.server(), fs::Permissions::from_mode(0o700))
    }

    pub fn server(&self) -> PathBuf {
        self.data.join("server")
    }

    /// Authorities, keys and leaf certificates of the control plane.
    pub fn server_tls(&self) -> PathBuf {
        self.data.join("server/tls")
    }

    pub fn database(&self) -> PathBuf {
        self.data.join("server/db/state.db")
    }

    /// The managed etcd: its data, and what is known of its process and membership.
    pub fn etcd(&self) -> PathBuf {
        self.data.join("server/db/etcd")
    }

    /// Asks the next start to move the state into a managed etcd.
    pub fn convert_intent(&self) -> PathBuf {
        self.data.join("server/db/convert-to-etcd")
    }

    /// The virtual address, and whether this server has it.
    pub fn virtual_address(&self) -> PathBuf {
        self.data.join("server/virtual-address.json")
    }

    /// What this state was restored from, if it was.
    pub fn restored(&self) -> PathBuf {
        self.data.join("server/restored.json")
    }

    /// A join of this server to others, under way.
    pub fn joining(&self) -> PathBuf {
        self.data.join("server/joining.json")
    }

    /// A cluster that goes on with this server alone: decided, and not done yet.
    pub fn recovering(&self) -> PathBuf {
        self.data.join("server/recovering.json")
    }

    /// The flags that this server has from the cluster it joined.
    pub fn shared_flags(&self) -> PathBuf {
        self.data.join("server/cluster.json")
    }

    /// What the cluster file says of this machine.
    pub fn cluster_settings(&self) -> PathBuf {
        self.keeper().join(CLUSTER_SETTINGS)
    }

    /// Bundles, where no other folder is named for them.
    pub fn backups(&self) -> PathBuf {
        self.data.join("backups")
    }

    /// Where a bundle is restored for a proof, and removed again.
    pub fn scratch(&self) -> PathBuf {
        self.data.join("scratch")
    }

    /// The secret half of the recovery kit, until somebody carries it away.
    pub fn recovery_kit(&self) -> PathBuf {
        self.data.join("server/recovery-kit.txt")
    }

    /// Its public half.
    pub fn kit_recipient(&self) -> PathBuf {
        self.data.join("server/cred/kit.recipient")
    }

    /// The pair that this cluster opens its own bundles with.
    pub fn proof_key(&self) -> PathBuf {
        self.data.join("server/cred/proof.key")
    }

    /// The flags that every server of the cluster shares, as this one was started with.
    pub fn cluster_flags(&self) -> PathBuf {
        self.data.join("server/cluster-flags.json")
    }

    /// What a restore has unpacked and not put in place yet.
    pub fn restoring(&self) -> PathBuf {
        self.data.join("server/restoring")
    }

    pub fn encryption_keys(&self) -> PathBuf {
        self.data.join("server/cred/encryption.keys")
    }

    /// A key of Secrets at rest that does not encrypt until every server has it.
    pub fn encryption_next(&self) -> PathBuf {
        self.data.join("server/cred/encryption.next")
    }

    /// The join token that an administrator copies to an agent.
    pub fn token(&self) -> PathBuf {
        self.data.join("server/token")
    }

    /// Requests to join that were refused here.
    pub fn refused_joins(&self) -> PathBuf {
        self.data.join("server/refused-joins.json")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.data.join("server/audit/audit.log")
    }

    /// Manifests that are applied when they change, and pruned when they go.
    pub fn manifests(&self) -> PathBuf {
        self.data.join("server/manifests")
    }

    /// The key that makes this machine itself, whatever it is called. Never copied: no bundle holds it.
    pub fn machine_key(&self) -> PathBuf {
        self.machine().join("key")
    }

    pub fn machine(&self) -> PathBuf {
        self.data.join("machine")
    }

    pub fn agent(&self) -> PathBuf {
        self.data.join("agent")
    }

    /// What a node proves itself with, and whom it trusts.
    pub fn agent_tls(&self) -> PathBuf {
        self.data.join("agent/tls")
    }

    /// The API servers that this node has learned of.
    pub fn known_servers(&self) -> PathBuf {
        self.data.join("agent/servers.json")
    }

    /// Image tarballs that are imported at start.
    pub fn images(&self) -> PathBuf {
        self.data.join("agent/images")
    }

    pub fn containerd(&self) -> PathBuf {
        self.data.join("agent/containerd")
    }

    /// Sockets and what dies with a boot. Unix socket paths are short: 108 bytes.
    pub fn run(&self) -> PathBuf {
        if self.data == Path::new(DATA) { PathBuf::from("/run/evenkeel") } else { self.data.join("run") }
    }

    pub fn net(&self) -> PathBuf {
        self.data.join("agent/net")
    }

    /// The process that serves names.
    pub fn names(&self) -> PathBuf {
        self.data.join("agent/names")
    }

    /// What this machine remembers of the keeper.
    pub fn keeper(&self) -> PathBuf {
        self.data.join("keeper")
    }

    /// Programs that may be run here.
    pub fn releases(&self) -> PathBuf {
        self.data.join("releases")
    }

    pub fn local_storage(&self) -> PathBuf {
        self.data.join("storage")
    }

    /// The fixed path for the default instance, inside the data folder for any other.
    pub fn kubeconfig(&self) -> PathBuf {
        if self.data == Path::new(DATA) { PathBuf::from(KUBECONFIG) } else { self.data.join("kubeconfig.yaml") }
    }
}
