//! Commands and flags. Flags of `server` and `agent` have no defaults here: those come after the configuration file
//! (`settings`). Every flag can be given as `WINDLASS_FLAG_NAME` in the environment.

mod api_server;
mod balancing;
mod logging;
mod machine;
mod storage;

pub(crate) use api_server::ApiServerFlags;
pub(crate) use balancing::BalancingFlags;
pub(crate) use logging::{LogFormat, Logging};
pub(crate) use machine::{CheckFlags, CheckRole, ResetFlags, UpgradeFlags, VersionFlags};
pub(crate) use storage::StorageFlags;

use crate::output::Output;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where all state of ours is kept.
pub(crate) const DATA_DIR: &str = "/var/lib/windlass";

/// Kubernetes from the node up.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version = crate::version::LONG,
    propagate_version = true,
    after_help = "Parts alone, with upstream's flags: windlass apiserver|scheduler|controllers|kubelet|proxy|dns|network --help"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logging: Logging,
    /// Configuration file of `server` and `agent` (YAML, flags without their dashes); may be absent unless named here; an empty name means none
    #[arg(long, global = true, env = "WINDLASS_CONFIG", value_name = "FILE", value_parser = maybe_empty_path())]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// clap's own parser refuses the empty path, which here means "no file".
fn maybe_empty_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a control plane and, unless told otherwise, this machine as a node of it
    Server(Box<ServerFlags>),
    /// Run this machine as a node
    Agent(Box<AgentFlags>),
    /// Make, list and delete the tokens machines join with
    #[command(subcommand)]
    Token(TokenCommand),
    /// Save and restore all that a cluster is
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// List and remove the members of the etcd beside the servers
    #[command(subcommand)]
    Member(MemberCommand),
    /// Print the administrator's kubeconfig, or make one for another user (on a server)
    Kubeconfig(KubeconfigFlags),
    /// Look at, renew and replace the certificates of this machine
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Look for what keeps this machine from working, and name remedies
    Check(CheckFlags),
    /// End this machine's pods and remove all state of ours from it
    Reset(ResetFlags),
    /// Put another release in the place of this machine's programs
    Upgrade(UpgradeFlags),
    /// Print the version and the commit it was built from
    Version(VersionFlags),
    /// Become another program that dies with the server: how a server starts etcd
    #[command(hide = true)]
    Exec(ExecFlags),
}

/// Flags of `server`.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct ServerFlags {
    /// Address the API server listens on [default: all]
    #[arg(long, env = "WINDLASS_BIND_ADDRESS")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port the API server listens on [default: 6443]
    #[arg(long, env = "WINDLASS_PORT")]
    pub(crate) port: Option<u16>,
    /// Address under which other machines and pods reach the API server [default: the first node IP]
    #[arg(long, env = "WINDLASS_ADVERTISE_ADDRESS")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// A stable name or address of all servers, `HOST[:PORT]`, for machines that join and for kubeconfigs: a load balancer's; given to each server [default: this server's]
    #[arg(long, env = "WINDLASS_CONTROL_PLANE_ENDPOINT", value_name = "HOST[:PORT]")]
    pub(crate) control_plane_endpoint: Option<String>,
    /// More names or addresses for the API server's certificate; may be repeated
    #[arg(long, env = "WINDLASS_TLS_SAN", value_delimiter = ',', value_name = "NAME")]
    pub(crate) tls_san: Vec<String>,
    /// A bootstrap token, id.secret, that machines may join with until it is deleted; with --server, the token this server joins with
    #[arg(long, env = "WINDLASS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) member: MemberFlags,
    /// A flag of kube-apiserver for the API server, NAME=VALUE without dashes; may be repeated
    #[arg(long, env = "WINDLASS_KUBE_APISERVER_ARG", value_name = "FLAG=VALUE")]
    pub(crate) kube_apiserver_arg: Vec<String>,
    /// Bits of the IPv4 range of pods that each node gets [default: 24]
    #[arg(long, env = "WINDLASS_NODE_CIDR_MASK_SIZE_IPV4", value_name = "BITS")]
    pub(crate) node_cidr_mask_size_ipv4: Option<u8>,
    /// Bits of the IPv6 range of pods that each node gets [default: 64]
    #[arg(long, env = "WINDLASS_NODE_CIDR_MASK_SIZE_IPV6", value_name = "BITS")]
    pub(crate) node_cidr_mask_size_ipv6: Option<u8>,
    /// Do not make this machine a node
    #[arg(long, env = "WINDLASS_NO_AGENT")]
    pub(crate) no_agent: bool,
    /// Also write the administrator's kubeconfig here
    #[arg(long, env = "WINDLASS_WRITE_KUBECONFIG", value_name = "FILE")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// When snapshots are made, as cron writes it; empty for never [default: 0 */12 * * *]
    #[arg(long, env = "WINDLASS_SNAPSHOT_SCHEDULE", value_name = "CRON")]
    pub(crate) snapshot_schedule: Option<String>,
    /// How many scheduled snapshots are kept [default: 5]
    #[arg(long, env = "WINDLASS_SNAPSHOT_RETENTION", value_name = "N")]
    pub(crate) snapshot_retention: Option<usize>,
    /// Directory of snapshots [default: snapshots in the data directory]
    #[arg(long, env = "WINDLASS_SNAPSHOT_DIR", value_name = "DIR")]
    pub(crate) snapshot_dir: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) api_server: ApiServerFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) storage: StorageFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) balancing: BalancingFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) node: NodeFlags,
}

/// How servers come together.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct MemberFlags {
    /// Keep objects in etcd, as its first member, so that other servers may join; what the embedded store holds moves there
    #[arg(long, env = "WINDLASS_CLUSTER_INIT", conflicts_with = "etcd_servers")]
    pub(crate) cluster_init: bool,
    /// Join the cluster of this server, https://HOST:6443, as another one
    #[arg(long, env = "WINDLASS_SERVER", value_name = "URL", conflicts_with = "cluster_init")]
    pub(crate) server: Option<String>,
    /// Key of what servers share, where the token does not hold it
    #[arg(
        long,
        env = "WINDLASS_CERTIFICATE_KEY",
        hide_env_values = true,
        value_name = "KEY",
        requires = "server"
    )]
    pub(crate) certificate_key: Option<String>,
    /// Hash of the public key of the cluster's authority, sha256:HEX, for tokens that do not hold it
    #[arg(long, env = "WINDLASS_CA_CERT_HASH", value_name = "HASH", requires = "server")]
    pub(crate) ca_cert_hash: Option<String>,
    /// Take the place of this member, whose machine is gone: it is removed once it has not answered for a minute
    #[arg(long, env = "WINDLASS_REPLACE_MEMBER", value_name = "NAME", requires = "server")]
    pub(crate) replace_member: Option<String>,
    /// The program of the member beside this server [default: etcd, in the PATH]
    #[arg(long, env = "WINDLASS_ETCD_PROGRAM", value_name = "FILE")]
    pub(crate) etcd_program: Option<PathBuf>,
}

/// Flags of `agent`.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct AgentFlags {
    /// The API server as `kubeadm join` names it: HOST:PORT
    #[arg(value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// The API server, https://HOST:6443; without one the node is stand-alone and runs static pods only
    #[arg(long, env = "WINDLASS_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Join token, as `windlass token create` prints it, or a bootstrap token with --ca-cert-hash
    #[arg(long, env = "WINDLASS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// File that holds the join token
    #[arg(long, env = "WINDLASS_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Hash of the public key of the cluster's authority, sha256:HEX, for tokens that do not hold it
    #[arg(
        long,
        visible_alias = "discovery-token-ca-cert-hash",
        env = "WINDLASS_CA_CERT_HASH",
        value_name = "HASH"
    )]
    pub(crate) ca_cert_hash: Option<String>,
    /// Address ranges of this node's pods, for a stand-alone node
    #[arg(long, env = "WINDLASS_POD_CIDR", value_delimiter = ',', value_name = "CIDR")]
    pub(crate) pod_cidr: Vec<ipnet::IpNet>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) node: NodeFlags,
}

impl AgentFlags {
    /// Says the server in one way: what stands on the line itself counts before flag, environment and file.
    pub(crate) fn normalised(mut self) -> Self {
        if let Some(endpoint) = self.endpoint.take() {
            self.server = Some(format!("https://{}", endpoint.trim_start_matches("https://")));
        }
        self
    }
}

/// Flags of every node.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct NodeFlags {
    /// Directory of all state of ours [default: /var/lib/windlass]
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Name of the node [default: the host name]
    #[arg(long, env = "WINDLASS_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Addresses of the node, the primary one first [default: the one that leads to the server]
    #[arg(long, env = "WINDLASS_NODE_IP", value_delimiter = ',', value_name = "IP")]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Labels of a new node, key=value; may be repeated
    #[arg(long, env = "WINDLASS_NODE_LABEL", value_delimiter = ',', value_name = "LABEL")]
    pub(crate) node_label: Vec<String>,
    /// Taints of a new node, key=value:Effect; may be repeated
    #[arg(long, env = "WINDLASS_NODE_TAINT", value_delimiter = ',', value_name = "TAINT")]
    pub(crate) node_taint: Vec<String>,
    /// Address ranges of all pods [default: 10.244.0.0/16]
    #[arg(long, env = "WINDLASS_CLUSTER_CIDR", value_delimiter = ',', value_name = "CIDR")]
    pub(crate) cluster_cidr: Vec<ipnet::IpNet>,
    /// Address ranges of services [default: 10.96.0.0/12]
    #[arg(long, env = "WINDLASS_SERVICE_CIDR", value_delimiter = ',', value_name = "CIDR")]
    pub(crate) service_cidr: Vec<ipnet::IpNet>,
    /// Addresses of the cluster's DNS [default: the tenth of each service range]
    #[arg(long, env = "WINDLASS_CLUSTER_DNS", value_delimiter = ',', value_name = "IP")]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster [default: cluster.local]
    #[arg(long, env = "WINDLASS_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// Socket of the container runtime [default: unix:///run/containerd/containerd.sock]
    #[arg(
        long,
        visible_alias = "cri-socket",
        env = "WINDLASS_CONTAINER_RUNTIME_ENDPOINT",
        value_name = "SOCKET"
    )]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Kubeconfig of the node's service proxy [default: a certificate of its own, as user system:kube-proxy]
    #[arg(long, env = "WINDLASS_PROXY_KUBECONFIG", value_name = "FILE")]
    pub(crate) proxy_kubeconfig: Option<PathBuf>,
    /// Kubeconfig of the node's DNS [default: a certificate of its own, as user windlass:dns]
    #[arg(long, env = "WINDLASS_DNS_KUBECONFIG", value_name = "FILE")]
    pub(crate) dns_kubeconfig: Option<PathBuf>,
    /// Kubeconfig of the node's pod network [default: a certificate of its own, as user windlass:network]
    #[arg(long, env = "WINDLASS_NETWORK_KUBECONFIG", value_name = "FILE")]
    pub(crate) network_kubeconfig: Option<PathBuf>,
    /// Do not put network policies in force on this node; what is in force is lifted
    #[arg(long, env = "WINDLASS_NO_NETWORK_POLICY")]
    pub(crate) no_network_policy: bool,
    /// How pods of nodes reach each other, where the ConfigMap kube-system/windlass-network does not say: backend (auto, direct, vxlan), mtu,
    /// vxlan-id, vxlan-port; may be repeated [default: backend=auto]
    #[arg(long, env = "WINDLASS_POD_NETWORK", value_delimiter = ',', value_name = "KEY=VALUE")]
    pub(crate) pod_network: Vec<String>,
    /// A KubeletConfiguration file
    #[arg(long, env = "WINDLASS_KUBELET_CONFIG", value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// A CredentialProviderConfig: a file, or a directory of them
    #[arg(
        long,
        env = "WINDLASS_IMAGE_CREDENTIAL_PROVIDER_CONFIG",
        value_name = "PATH",
        requires = "image_credential_provider_bin_dir"
    )]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Directory of the credential providers' programs
    #[arg(
        long,
        env = "WINDLASS_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR",
        value_name = "DIR",
        requires = "image_credential_provider_config"
    )]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
    /// Directory of pods' volumes and state [default: /var/lib/kubelet]
    #[arg(long, env = "WINDLASS_KUBELET_ROOT", value_name = "DIR")]
    pub(crate) kubelet_root: Option<PathBuf>,
    /// Directory of pods' logs [default: /var/log/pods]
    #[arg(long, env = "WINDLASS_POD_LOGS_DIR", value_name = "DIR")]
    pub(crate) pod_logs_dir: Option<PathBuf>,
    /// Directory of links to containers' logs [default: /var/log/containers]
    #[arg(long, env = "WINDLASS_CONTAINER_LOGS_DIR", value_name = "DIR")]
    pub(crate) container_logs_dir: Option<PathBuf>,
    /// Directory of CNI configuration [default: /etc/cni/net.d]
    #[arg(long, env = "WINDLASS_CNI_CONF_DIR", value_name = "DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Directory of CNI plugins [default: /opt/cni/bin]
    #[arg(long, env = "WINDLASS_CNI_BIN_DIR", value_name = "DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// Directory of static pods' manifests [default: /etc/windlass/manifests]
    #[arg(long, env = "WINDLASS_STATIC_POD_PATH", value_name = "DIR")]
    pub(crate) static_pod_path: Option<PathBuf>,
    /// The cgroup below which pods' cgroups are made
    #[arg(long, env = "WINDLASS_CGROUP_ROOT", value_name = "CGROUP")]
    pub(crate) cgroup_root: Option<String>,
}

/// `token ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it
    Create(TokenCreate),
    /// List the tokens there are
    List(TokenList),
    /// Delete tokens by id
    Delete(TokenDelete),
}

/// How `token` reaches the API server.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The administrator's kubeconfig [default: the one in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Directory of the server's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `30m`, `24h`, `1h30m`, `0`.
pub(crate) fn parse_life(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is no duration, such as 24h"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))
}

/// `token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// The bootstrap token to make, id.secret [default: a random one]
    pub(crate) token: Option<String>,
    /// How long it lives, such as 30m or 24h; 0: it never expires
    #[arg(long, default_value = "24h", value_parser = parse_life)]
    pub(crate) ttl: Duration,
    /// What it is for
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Print the whole command a machine joins with
    #[arg(long)]
    pub(crate) print_join_command: bool,
    /// A token for another server: for two hours, what servers share is kept in the cluster under a key that only the token holds
    #[arg(long)]
    pub(crate) control_plane: bool,
    /// The key to keep them under [default: a new one]
    #[arg(long, value_name = "KEY", requires = "control_plane")]
    pub(crate) certificate_key: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `token list`
#[derive(Debug, Args)]
pub(crate) struct TokenList {
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `token delete`
#[derive(Debug, Args)]
pub(crate) struct TokenDelete {
    /// Ids of tokens, or whole tokens
    #[arg(required = true)]
    pub(crate) tokens: Vec<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `member ...`
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members
    List(MemberList),
    /// Remove a member, by its name or id; its server may join again
    Remove(MemberRemove),
}

/// `member list`
#[derive(Debug, Args)]
pub(crate) struct MemberList {
    /// Directory of the server's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `member remove`
#[derive(Debug, Args)]
pub(crate) struct MemberRemove {
    /// Its name or id
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: MemberList,
}

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct ExecFlags {
    /// The program
    pub(crate) program: PathBuf,
    /// Its arguments
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

/// `snapshot ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write a snapshot of this server's cluster, running or not
    Save(SnapshotSave),
    /// List the snapshots there are
    List(SnapshotPlace),
    /// Put a snapshot in the place of this server's state; the server must be stopped
    Restore(SnapshotRestore),
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotPlace {
    /// Directory of the server's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Directory of snapshots [default: the server's own, else snapshots in the data directory]
    #[arg(long, env = "WINDLASS_SNAPSHOT_DIR", value_name = "DIR")]
    pub(crate) snapshot_dir: Option<PathBuf>,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `snapshot save`
#[derive(Debug, Args)]
pub(crate) struct SnapshotSave {
    /// What the file's name begins with
    #[arg(long, default_value = "on-demand")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: SnapshotPlace,
}

/// `snapshot restore`
#[derive(Debug, Args)]
pub(crate) struct SnapshotRestore {
    /// The snapshot: a file, or the name of one in the directory of snapshots
    pub(crate) snapshot: PathBuf,
    /// Restore it although other members of the server's etcd run, or cannot be asked
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) place: SnapshotPlace,
}

/// `certs ...`
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Tell when certificates end and who signed them
    Check(CertsPlace),
    /// Renew a server's certificates before their time; a server that runs uses them at once
    Renew(CertsRenew),
    /// Put another authority in the place of the cluster's, in three steps: prepare, switch, finish
    RotateCa(CertsRotate),
}

#[derive(Debug, Args)]
pub(crate) struct CertsPlace {
    /// Directory of this machine's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// `certs renew`
#[derive(Debug, Args)]
pub(crate) struct CertsRenew {
    /// Names as `certs check` tells them, or all
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) place: CertsPlace,
}

/// `certs rotate-ca`
#[derive(Debug, Args)]
pub(crate) struct CertsRotate {
    /// Which authority
    #[arg(default_value = "ca", value_parser = ["ca", "front-proxy-ca", "etcd-ca"])]
    pub(crate) name: String,
    /// The step to do [default: the next one]
    #[arg(long, value_enum)]
    pub(crate) step: Option<RotationStep>,
    /// Do it although certificates, nodes or servers do not follow yet
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) place: CertsPlace,
}

/// A step of `certs rotate-ca`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RotationStep {
    /// Make the new authority and let everybody trust it beside the present one
    Prepare,
    /// Let it sign, and certify everything again
    Switch,
    /// Stop trusting the old one
    Finish,
}

/// `kubeconfig`
#[derive(Debug, Args)]
pub(crate) struct KubeconfigFlags {
    /// Make a client certificate for this user [default: print the administrator's kubeconfig]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// A group the user is in; may be repeated
    #[arg(long, value_name = "GROUP", requires = "user")]
    pub(crate) group: Vec<String>,
    /// How long the certificate lives, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = parse_life, requires = "user")]
    pub(crate) validity: Option<Duration>,
    /// The API server as the user of the kubeconfig reaches it
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Directory of the server's state
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Form of what is printed
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn an_agent_takes_the_words_of_kubeadm_join() {
        let hash = format!("sha256:{}", "0".repeat(64));
        let line = format!(
            "windlass agent 192.0.2.1:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {hash} \
             --node-name n1 --cri-socket unix:///run/x.sock"
        );
        let Command::Agent(flags) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("another command")
        };
        let flags = flags.normalised();
        assert_eq!(flags.server.as_deref(), Some("https://192.0.2.1:6443"));
        assert_eq!((flags.endpoint, flags.ca_cert_hash), (None, Some(hash)));
        assert_eq!(flags.node.node_name.as_deref(), Some("n1"));
        assert_eq!(flags.node.container_runtime_endpoint.as_deref(), Some("unix:///run/x.sock"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
