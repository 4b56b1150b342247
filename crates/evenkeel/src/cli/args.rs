//! Every command and flag, in one place. A flag's name is also its key in the configuration file.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use jiff::SignedDuration;

mod change;

pub use change::{
    ChangeArgs, JournalArgs, KeeperArgs, KeeperWatchArgs, LeaveArgs, NodeCommand, NodeCommandArgs, PlanArgs,
    RecoverArgs, RecoverCommand, ReplaceArgs, UpgradeArgs,
};

use super::backup::{BackupFlags, S3Flags};
use crate::config::CONFIG;
use crate::layout::{DATA, Layout};

/// Kubernetes for small teams on bare metal.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about, args_override_self = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: API, control plane and node
    Server(ServerArgs),
    /// Run a node that joins a server
    Agent(AgentArgs),
    /// What runs, what is wrong, and what to do about it
    Status(StatusArgs),
    /// The cause of what is wrong, and one next command
    Wrong(WrongArgs),
    /// Look for what would keep a server or node from working on this machine
    CheckConfig(ServerArgs),
    /// Make a backup of this cluster's state and keys now; list and prove those there are
    #[command(alias = "etcd-snapshot")]
    Backup(BackupArgs),
    /// Restore a bundle into an empty data folder
    Restore(RestoreArgs),
    /// Go on after servers were lost for good
    Recover(RecoverArgs),
    /// Put a new machine in the place of a lost node, step by step, with a scorecard
    Replace(ReplaceArgs),
    /// Where this server's state is; move it into an etcd that more servers can join
    Datastore(DatastoreCommandArgs),
    /// Bring all nodes to another program, one at a time
    Upgrade(UpgradeArgs),
    /// Bring all nodes back to what ran before
    Back(ChangeArgs),
    /// Let what is stored take its new form; after that there is no way back but a restore
    Finalise(ChangeArgs),
    /// Have the open run wait where no node is half done
    Pause(KeeperArgs),
    /// Have the open run go on; what failed is tried again
    Resume(KeeperArgs),
    /// Look on until the open run is over or needs somebody
    Watch(KeeperArgs),
    /// What a run does, in order
    Plan(PlanArgs),
    /// What was intended and what came of it
    Journal(JournalArgs),
    /// Look on while another program is on trial: started by the node
    #[command(hide = true)]
    KeeperWatch(KeeperWatchArgs),
    /// Print a kubeconfig
    Kubeconfig(KubeconfigArgs),
    /// Tokens for machines that join
    Token(TokenArgs),
    /// Take this machine out of its cluster
    Leave(LeaveArgs),
    /// The cluster's nodes
    Node(NodeCommandArgs),
    /// The cluster's certificates
    Certificate(CertificateArgs),
    /// Container images on this machine
    Images(ImagesArgs),
    /// Containers on this machine
    Ps(PsArgs),
    /// Stop the program on this machine, and with --pods everything it started
    Stop(StopArgs),
    /// Serve the cluster's names: started and adopted by the node
    #[command(hide = true)]
    Names(NamesArgs),
    /// Restore a bundle into a scratch control plane and report: started for a proof
    #[command(hide = true)]
    Scratch(ScratchArgs),
    /// Run the kubectl of this machine against this cluster
    #[command(disable_help_flag = true)]
    Kubectl(KubectlArgs),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script
    Completion { shell: clap_complete::Shell },
    /// Install a systemd unit for this program
    Install(InstallArgs),
    /// Stop and remove what `install` made; --data removes the data folder as well
    Uninstall(UninstallArgs),
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Folder of all state
    #[arg(long, short = 'd', global = true, default_value = DATA, value_name = "PATH")]
    pub data_dir: PathBuf,
    /// Configuration file; PATH.d/*.yaml is read after it
    #[arg(long, short = 'c', global = true, default_value = CONFIG, value_name = "PATH")]
    pub config: PathBuf,
    /// Log more
    #[arg(long, global = true)]
    pub debug: bool,
}

/// Flags of every command that runs a node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, short = 'i', value_name = "IP", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Address that is reached from outside
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub node_external_ip: Vec<IpAddr>,
    /// Labels of this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub node_label: Vec<String>,
    /// Taints of this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    pub node_taint: Vec<String>,
    /// What of memory, disk and processes pods must leave free [default: memory.available<100Mi,
    /// nodefs.available<5%,imagefs.available<5%,nodefs.inodesFree<5%,imagefs.inodesFree<5%,pid.available<1000]
    #[arg(long, value_name = "SIGNAL<LEAST", value_delimiter = ',')]
    pub eviction_hard: Vec<String>,
    /// Fill of the images' disk, in percent, at which unused images go, and at which they stop going
    #[arg(long, default_value_t = 85, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub image_gc_high_threshold: u32,
    #[arg(long, default_value_t = 80, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub image_gc_low_threshold: u32,
    /// Kernel settings beyond the safe ones that pods may change: names, or beginnings as net.core.*
    #[arg(long, value_name = "SYSCTL", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Port of the kubelet API
    #[arg(long, default_value_t = 10250, value_name = "PORT")]
    pub kubelet_port: u16,
    /// Address of the kubelet API
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub kubelet_address: IpAddr,
    /// Use this CRI socket instead of running a containerd
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// DNS configuration that pods inherit
    #[arg(long, value_name = "PATH")]
    pub resolv_conf: Option<PathBuf>,
    /// Registry mirrors and credentials
    #[arg(long, default_value = "/etc/evenkeel/registries.yaml", value_name = "PATH")]
    pub private_registry: PathBuf,
    /// Root of the pods' cgroups, below each hierarchy
    #[arg(long, default_value = "", value_name = "PATH", hide = true)]
    pub cgroup_root: String,
    /// Name of the pods' bridge
    #[arg(long, default_value = "evk0", value_name = "NAME", hide = true)]
    pub bridge_name: String,
}

#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Address to listen on
    #[arg(long, default_value = "::", value_name = "IP")]
    pub bind_address: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub https_listen_port: u16,
    /// Address at which others reach this server [default: the node's]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// More names and addresses for the serving certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// An address for people, held by one of the servers that serve; the same on all of them
    #[arg(long, value_name = "IP[/PREFIX]", value_parser = address_on_link)]
    pub virtual_address: Option<IpNet>,
    /// Range of pod addresses
    #[arg(long, default_value = "10.42.0.0/16", value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Range of service addresses
    #[arg(long, default_value = "10.43.0.0/16", value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<String>,
    /// Range of node ports
    #[arg(long, default_value = "30000-32767", value_name = "FROM-TO")]
    pub service_node_port_range: String,
    /// Address of the cluster's DNS [default: the tenth of the service range]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,
    /// Where every node keeps `local-path` volumes [default: storage in the data folder]
    #[arg(long, value_name = "PATH")]
    pub default_local_storage_path: Option<PathBuf>,
    /// Domain of the cluster
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Secret that machines join with [default: drawn on the first start]
    #[arg(long, short = 't', value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the secret that agents join with
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Where to write the administrator's kubeconfig
    #[arg(long, short = 'o', value_name = "PATH")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Its mode, octal
    #[arg(long, default_value = "0600", value_name = "MODE")]
    pub write_kubeconfig_mode: String,
    /// What to leave out: local-storage, servicelb, dns, network, network-policy, proxy, or a file of server/manifests
    #[arg(long, value_name = "COMPONENT", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// Run no node on this machine
    #[arg(long)]
    pub disable_agent: bool,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// Keep the state in an etcd of this server's own, which more servers can join; what is in the data folder moves there
    #[arg(long)]
    pub cluster_init: bool,
    /// Further flags of that etcd
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub etcd_arg: Vec<String>,
    #[command(flatten)]
    pub backup: BackupFlags,
    /// How long certificates last, as 365d, 12h or 30m; they renew themselves at two thirds of it
    #[arg(long, default_value = "365d", value_name = "SPAN", value_parser = span)]
    pub certificate_lifetime: SignedDuration,
    /// Join the server there: https://HOST:6443, with a server's --token. Needed once
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

/// Where the state is, if not in the data folder.
#[derive(Clone, Debug, Args)]
pub struct DatastoreArgs {
    /// An etcd to keep the state in, instead of the data folder: http(s)://HOST:2379,...
    #[arg(long, value_name = "URL,...")]
    pub datastore_endpoint: Option<String>,
    /// CA of that etcd
    #[arg(long, value_name = "PATH")]
    pub datastore_cafile: Option<PathBuf>,
    /// Client certificate for that etcd
    #[arg(long, value_name = "PATH", requires = "datastore_keyfile")]
    pub datastore_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "PATH", requires = "datastore_certfile")]
    pub datastore_keyfile: Option<PathBuf>,
}

impl ServerArgs {
    /// Where every node of the cluster keeps `local-path` volumes.
    pub fn local_storage(&self) -> PathBuf {
        self.default_local_storage_path.clone().unwrap_or_else(|| self.common.layout().local_storage())
    }

    /// Whether a component is not left out.
    pub fn enables(&self, component: &str) -> bool {
        self.disable.iter().all(|disabled| disabled != component)
    }
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub node: NodeArgs,
    /// The server to join: https://HOST:6443
    #[arg(long, short = 's', value_name = "URL")]
    pub server: String,
    /// Join token, needed until the node has joined
    #[arg(long, short = 't', value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File with the join token
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub common: Common,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Kubeconfig to use instead of this machine's own
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct WrongArgs {
    #[command(flatten)]
    pub common: Common,
    /// Five lines, for a phone
    #[arg(long, conflicts_with = "json")]
    pub short: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Kubeconfig to use instead of this machine's own
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Write the bundle into this file, instead of where the server keeps its backups
    #[arg(long, short = 'f', value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Seal the keys in that file to this recipient as well; may be given several times
    #[arg(long, value_name = "RECIPIENT", value_delimiter = ',', requires = "file")]
    pub recipient: Vec<String>,
    /// Seal them with the passphrase in this file as well
    #[arg(long, value_name = "PATH", requires = "file")]
    pub passphrase_file: Option<PathBuf>,
    /// Make a recipient and its secret key, print both, and do nothing else
    #[arg(long)]
    pub new_recipient: bool,
}

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// What `etcd-snapshot save` is in k3s: the same as without a word
    #[command(hide = true)]
    Save,
    /// List the backups in every target, and whether each was proven
    #[command(alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restore a backup where it can touch nothing, and check it
    Prove(ProveArgs),
    /// The recovery kit, which opens every backup
    Kit(KitArgs),
}

#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Name out of the list, or a file [default: the newest]
    #[arg(value_name = "BUNDLE")]
    pub bundle: Option<String>,
    /// File with the secret that opens a bundle in a file [default: this cluster's own]
    #[arg(long, value_name = "PATH")]
    pub secret_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct KitArgs {
    /// Draw another kit; backups made before open with the one before
    #[arg(long)]
    pub rotate: bool,
    /// Check that a copy of the kit opens the backups of this cluster
    #[arg(long, value_name = "PATH", conflicts_with = "rotate")]
    pub check: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ScratchArgs {
    #[arg(long)]
    pub bundle: PathBuf,
    #[arg(long)]
    pub secret_file: PathBuf,
    #[arg(long)]
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub common: Common,
    /// Bundle to restore: a file, or https://ENDPOINT/BUCKET/PREFIX/NAME of an S3-compatible store
    #[arg(value_name = "BUNDLE", required_unless_present_any = ["file", "prune"])]
    pub bundle: Option<String>,
    /// The same, by a flag
    #[arg(long, short = 'f', value_name = "PATH", conflicts_with = "bundle")]
    pub file: Option<String>,
    /// File with a secret key that opens it: a recipient's, or the recovery kit
    #[arg(long, value_name = "PATH", conflicts_with = "passphrase_file")]
    pub secret_file: Option<PathBuf>,
    /// File with the passphrase
    #[arg(long, value_name = "PATH")]
    pub passphrase_file: Option<PathBuf>,
    /// Only print what the bundle says of itself
    #[arg(long)]
    pub show: bool,
    /// On the restored, running server: list nodes that did not come back, and remove them after asking
    #[arg(long, conflicts_with_all = ["bundle", "file"])]
    pub prune: bool,
    /// Do not ask
    #[arg(long, requires = "prune")]
    pub yes: bool,
    #[command(flatten)]
    pub s3: S3Flags,
    #[command(flatten)]
    pub datastore: DatastoreArgs,
}

#[derive(Debug, Args)]
pub struct DatastoreCommandArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: DatastoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// Say where the state is
    Show,
    /// Move the state from its file into an etcd of this server's own: pods go on, the API is away for some seconds
    Convert,
}

#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    pub common: Common,
    /// Address of the API server to write into it: for a laptop
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Name of the cluster, the user and the context
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it once
    Create {
        /// How long it lasts, as 24h or 30m; 0 for ever
        #[arg(long, default_value = "24h", value_name = "SPAN", value_parser = span_or_ever)]
        ttl: SignedDuration,
        /// agent or server
        #[arg(long, default_value = "agent")]
        role: String,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List tokens, without their secrets
    List,
    /// Delete a token by its id
    Delete { id: String },
}

#[derive(Debug, Args)]
pub struct CertificateArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: CertificateCommand,
}

#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// List certificates with their ends and renewals
    Check,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    #[command(flatten)]
    pub common: Common,
    /// Use this CRI socket
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    #[command(subcommand)]
    pub command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// List images
    Ls,
    /// Pull images
    Pull {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Import image tarballs
    Import {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Remove images
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub common: Common,
    /// Use this CRI socket
    #[arg(long, value_name = "SOCKET")]
    pub container_runtime_endpoint: Option<String>,
    /// Also those that have ended
    #[arg(long, short = 'a')]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub common: Common,
    /// Stop pods and containerd too, and remove their network
    #[arg(long)]
    pub pods: bool,
}

#[derive(Debug, Args)]
pub struct NamesArgs {
    /// What to serve and whom to ask
    #[arg(long, value_name = "PATH")]
    pub settings: PathBuf,
}

#[derive(Debug, Args)]
pub struct KubectlArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub common: Common,
    /// server or agent
    #[arg(long, default_value = "server")]
    pub role: String,
    /// Print the unit instead of installing it
    #[arg(long)]
    pub print: bool,
    /// Folder of unit files
    #[arg(long, default_value = "/etc/systemd/system", value_name = "PATH", hide = true)]
    pub unit_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub common: Common,
    /// Remove the data folder: all state, all keys, all local volumes
    #[arg(long)]
    pub data: bool,
    #[arg(long, default_value = "/etc/systemd/system", value_name = "PATH", hide = true)]
    pub unit_dir: PathBuf,
}

// === impl Common ===

impl Common {
    pub fn layout(&self) -> Layout {
        Layout::new(&self.data_dir)
    }
}

/// The shortest life that leaves time to renew.
const LIFETIME_MIN: SignedDuration = SignedDuration::from_mins(1);

/// `365d`, `12h`, `30m`.
pub fn span(text: &str) -> Result<SignedDuration, String> {
    let (count, unit) = text.char_indices().next_back().map_or((text, ""), |(at, _)| text.split_at(at));
    let minutes: i64 = match unit {
        "d" => 24 * 60,
        "h" => 60,
        "m" => 1,
        _ => return Err("a span of time reads 365d, 12h or 30m".to_owned()),
    };
    let count: u32 = count.parse().map_err(|_| "a span of time reads 365d, 12h or 30m".to_owned())?;
    let span = SignedDuration::from_mins(i64::from(count) * minutes);
    // The authorities themselves last ten years.
    if span < LIFETIME_MIN || span > SignedDuration::from_hours(24 * 3650) {
        return Err("between 1m and 3650d".to_owned());
    }
    Ok(span)
}

/// `192.0.2.9`, or with the prefix that it has on the link: `192.0.2.9/24`.
fn address_on_link(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| "an address reads 192.0.2.9 or 192.0.2.9/24".to_owned())?;
    let address = net.addr();
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!("{address} is no address that one machine of several can have"));
    }
    Ok(net)
}

/// As [`span`], and `0` for a thing without an end.
fn span_or_ever(text: &str) -> Result<SignedDuration, String> {
    if text == "0" { Ok(SignedDuration::ZERO) } else { span(text) }
}

#[cfg(test)]
mod tests {
    use super::{Cli, address_on_link, span};
    use clap::CommandFactory;
    use jiff::SignedDuration;

    #[test]
    fn spans_have_a_unit_and_limits() {
        assert_eq!(span("90d"), Ok(SignedDuration::from_hours(90 * 24)));
        assert_eq!(span("1m"), Ok(SignedDuration::from_mins(1)));
        for bad in ["", "d", "1", "0m", "1y", "-1d", "4000d", "1é"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_may_have_a_prefix() {
        assert_eq!(address_on_link("192.0.2.9").unwrap().to_string(), "192.0.2.9/32");
        assert_eq!(address_on_link("2001:db8::9/64").unwrap().to_string(), "2001:db8::9/64");
        for bad in ["", "a", "192.0.2.9/33", "127.0.0.1", "0.0.0.0/0", "ff02::1"] {
            assert!(address_on_link(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
