//! What is in the kernel, and changing it: the only owner of the table `windlass`.
//!
//! Woken by [`run`](crate::run) with the services that changed. Keeps a shadow of what is applied, so that the hot path never lists; a
//! change is one transaction of exactly the elements that differ. After a failed transaction, or when the table was taken away, one
//! transaction replaces everything: there is no moment without rules.

use crate::element::{Balancer, Difference, Element, Set, elements};
use crate::model::{Rules, model};
use crate::service::{Service, Slice};
use crate::text;
use ipnet::IpNet;
use nftables::schema::{NfListObject, NfObject};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why the kernel could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` is missing or cannot be fed.
    #[error("run nft")]
    Run(#[source] std::io::Error),
    /// The kernel refused the transaction.
    #[error("apply {lines} lines of nftables: {message}")]
    Refused {
        /// How long the transaction was.
        lines: usize,
        /// What nft said.
        message: String,
    },
    /// The tables cannot be listed.
    #[error("list the nftables tables")]
    List(#[source] nftables::helper::NftablesError),
}

/// Name of a service: namespace and name.
pub type ServiceName = (String, String);

/// The newest known services and slices.
#[derive(Debug, Default)]
pub struct State {
    /// Services by name.
    pub services: HashMap<ServiceName, Service>,
    /// Slices by the service's name, then by the slice's name.
    pub slices: HashMap<ServiceName, BTreeMap<String, Slice>>,
}

/// The applier.
pub struct Applier {
    node: String,
    cluster_cidrs: Vec<IpNet>,
    applied: HashMap<ServiceName, Rules>,
    balancers: BTreeSet<Balancer>,
    /// How many services want a hairpin element: services may share an endpoint.
    shared: HashMap<Element, u32>,
    in_step: bool,
}

/// What one application did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Elements removed and added; conntrack forgets what the removed ones led to.
    pub difference: Difference,
}

impl Applier {
    /// An applier that has applied nothing yet: its first transaction replaces whatever is there.
    #[must_use]
    pub fn new(node: String, cluster_cidrs: Vec<IpNet>) -> Self {
        Self {
            node,
            cluster_cidrs,
            applied: HashMap::new(),
            balancers: BTreeSet::new(),
            shared: HashMap::new(),
            in_step: false,
        }
    }

    /// Brings the kernel to `state` for the services in `dirty`; for all of them when the kernel is out of step.
    ///
    /// # Errors
    /// The transaction failed: nothing was changed, and the next call replaces everything.
    pub async fn apply(&mut self, state: &State, dirty: &BTreeSet<ServiceName>) -> Result<Applied, Error> {
        if !self.in_step {
            return self.replace(state).await;
        }
        let mut next = HashMap::new();
        let mut difference = Difference::default();
        let mut shared: HashMap<Element, i64> = HashMap::new();
        for name in dirty {
            let empty = Rules::default();
            let old = self.applied.get(name).unwrap_or(&empty);
            let new = self.rules(state, name, old);
            if *old == new {
                continue;
            }
            let change = Difference::between(&elements(old), &elements(&new));
            for (list, delta, into) in
                [(change.delete, -1, &mut difference.delete), (change.add, 1, &mut difference.add)]
            {
                for element in list {
                    if element.set == Set::Hairpin {
                        *shared.entry(element).or_default() += delta;
                    } else {
                        into.push(element);
                    }
                }
            }
            next.insert(name.clone(), new);
        }
        for (element, delta) in &shared {
            let before = i64::from(self.shared.get(element).copied().unwrap_or(0));
            match (before, before + delta) {
                (0, 1..) => difference.add.push(element.clone()),
                (1.., 0) => difference.delete.push(element.clone()),
                _ => {}
            }
        }
        let mut transaction = text::balancers(&difference, &mut self.balancers);
        transaction.push_str(&text::elements(&difference));
        if !transaction.is_empty()
            && let Err(error) = run_nft(&transaction).await
        {
            self.in_step = false;
            return Err(error);
        }
        for (element, delta) in shared {
            let count = i64::from(self.shared.get(&element).copied().unwrap_or(0)) + delta;
            self.shared.insert(element, u32::try_from(count).unwrap_or(0));
        }
        self.shared.retain(|_, count| *count > 0);
        for (name, rules) in next {
            if rules == Rules::default() {
                self.applied.remove(&name)
            } else {
                self.applied.insert(name, rules)
            };
        }
        Ok(Applied { difference })
    }

    /// Everything in one transaction.
    async fn replace(&mut self, state: &State) -> Result<Applied, Error> {
        let mut next = HashMap::new();
        let mut shared: HashMap<Element, u32> = HashMap::new();
        let mut wanted = BTreeSet::new();
        for name in state.services.keys() {
            let empty = Rules::default();
            let rules = self.rules(state, name, self.applied.get(name).unwrap_or(&empty));
            for element in elements(&rules) {
                if element.set == Set::Hairpin {
                    *shared.entry(element.clone()).or_default() += 1;
                }
                wanted.insert(element);
            }
            next.insert(name.clone(), rules);
        }
        let before: BTreeSet<Element> = self.applied.values().flat_map(elements).collect();
        let whole = Difference { delete: Vec::new(), add: wanted.iter().cloned().collect() };
        let mut balancers = BTreeSet::new();
        let mut transaction = text::tables(&self.cluster_cidrs);
        transaction.push_str(&text::balancers(&whole, &mut balancers));
        transaction.push_str(&text::elements(&whole));
        run_nft(&transaction).await?;
        self.applied = next;
        self.shared = shared;
        self.balancers = balancers;
        self.in_step = true;
        Ok(Applied { difference: Difference::between(&before, &wanted) })
    }

    fn rules(&self, state: &State, name: &ServiceName, old: &Rules) -> Rules {
        let none = BTreeMap::new();
        let slices = state.slices.get(name).unwrap_or(&none).values();
        state
            .services
            .get(name)
            .map_or_else(Rules::default, |service| model(service, &slices, &self.node, old))
    }

    /// Looks whether both tables are still there; if not, the next [`Applier::apply`] replaces everything.
    ///
    /// # Errors
    /// nft cannot list tables.
    pub async fn audit(&mut self) -> Result<bool, Error> {
        let listed = nftables::helper::get_current_ruleset_with_args_async(None::<&str>, ["list", "tables"])
            .await
            .map_err(Error::List)?;
        let ours = listed.objects.iter().filter(|object| {
            matches!(object, NfObject::ListObject(NfListObject::Table(table)) if table.name == text::TABLE)
        });
        self.in_step = self.in_step && ours.count() == 2;
        Ok(self.in_step)
    }
}

/// Takes both tables away: this node serves no services any more.
///
/// # Errors
/// nft fails.
pub async fn remove_tables() -> Result<(), Error> {
    let mut text = String::new();
    for family in ["ip", "ip6"] {
        text.push_str(&format!("table {family} {0}\ndelete table {family} {0}\n", text::TABLE));
    }
    run_nft(&text).await
}

async fn run_nft(transaction: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    let mut stdin =
        child.stdin.take().ok_or_else(|| Error::Run(std::io::Error::other("nft has no standard input")))?;
    let feed = async move {
        // an early end of nft shows in its status; what it said is worth more than the broken pipe
        let _ = stdin.write_all(transaction.as_bytes()).await;
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(Error::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).lines().take(4).collect::<Vec<_>>().join("; ");
    Err(Error::Refused { lines: transaction.lines().count(), message })
}
