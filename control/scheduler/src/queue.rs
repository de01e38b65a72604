//! Whose turn it is: pods that are ready (by priority, then age), that back off, and that wait for the cluster to change. Pure;
//! `now` is an argument.

use crate::fit::Plugin;
use crate::model::Pod;
use crate::profile::Waits;
use crate::schedule::{Change, may_help};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Where a pod stands; how it is left.
#[derive(Clone, Debug, PartialEq)]
enum Stand {
    /// Left by [`Queue::pop`].
    Active,
    /// Left when the moment has come.
    Backoff(Instant),
    /// Left when a change may help one of the filters that refused, or after [`Waits::unschedulable`].
    Unschedulable { refused: Vec<Plugin>, since: Instant },
    /// Being scheduled, bound or reported; left by the outcome. Changes meanwhile are kept: they may help.
    InFlight { changes: Vec<Change> },
    /// Left when the last scheduling gate is gone.
    Gated,
}

#[derive(Clone, Debug)]
struct Waiting {
    pod: Arc<Pod>,
    stand: Stand,
    attempts: u32,
    /// When it came into the queue, or was last tried.
    since: Instant,
}

type Rank = (Reverse<i32>, Instant, String);

/// Pods without a node.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<Rank>,
    /// Pods whose stand ends by itself, by when.
    timed: BTreeSet<(Instant, String)>,
    /// Pods that changes of the cluster matter to.
    attentive: HashSet<String>,
    /// Pods with a nomination.
    nominees: HashSet<String>,
    waits: Waits,
}

impl Stand {
    /// When the stand ends by itself.
    fn ends(&self, waits: &Waits) -> Option<Instant> {
        match self {
            Self::Backoff(until) => Some(*until),
            Self::Unschedulable { since, .. } => Some(*since + waits.unschedulable),
            _ => None,
        }
    }
}

impl Waiting {
    fn rank(&self) -> Rank {
        (Reverse(self.pod.priority), self.since, self.pod.uid.clone())
    }

    fn backoff_ends(&self, waits: &Waits) -> Instant {
        let doubled =
            waits.first.saturating_mul(2_u32.saturating_pow(self.attempts.saturating_sub(1).min(31)));
        if self.attempts == 0 { self.since } else { self.since + doubled.min(waits.longest) }
    }
}

/// Whether anything differs that scheduling reads; what the scheduler itself writes does not count.
fn differs(a: &Pod, b: &Pod) -> bool {
    let neutral = |p: &Pod| Pod { unschedulable: None, nominated: None, generation: 0, ..p.clone() };
    neutral(a) != neutral(b)
}

impl Queue {
    /// An empty one.
    pub(crate) fn new(waits: Waits) -> Self {
        Self { waits, ..Self::default() }
    }

    /// The only way a pod's stand changes, so that the indexes follow.
    fn stand(&mut self, uid: &str, stand: Stand) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if waiting.stand == Stand::Active {
            self.active.remove(&waiting.rank());
        }
        if let Some(ends) = waiting.stand.ends(&self.waits) {
            self.timed.remove(&(ends, uid.to_owned()));
        }
        if stand == Stand::Active {
            self.active.insert(waiting.rank());
        }
        if let Some(ends) = stand.ends(&self.waits) {
            self.timed.insert((ends, uid.to_owned()));
        }
        if matches!(stand, Stand::Unschedulable { .. } | Stand::InFlight { .. }) {
            self.attentive.insert(uid.to_owned());
        } else {
            self.attentive.remove(uid);
        }
        waiting.stand = stand;
    }

    /// Replaces what is known of a pod.
    fn replace(&mut self, pod: Arc<Pod>) {
        let Some(waiting) = self.pods.get_mut(&pod.uid) else { return };
        if waiting.stand == Stand::Active {
            self.active.remove(&waiting.rank());
        }
        if pod.nominated.is_some() {
            self.nominees.insert(pod.uid.clone());
        } else {
            self.nominees.remove(&pod.uid);
        }
        waiting.pod = pod;
        if waiting.stand == Stand::Active {
            self.active.insert(waiting.rank());
        }
    }

    /// Active, or first to the end of its backoff.
    fn ready(&mut self, uid: &str, now: Instant) {
        let Some(ends) = self.pods.get(uid).map(|waiting| waiting.backoff_ends(&self.waits)) else { return };
        self.stand(uid, if ends <= now { Stand::Active } else { Stand::Backoff(ends) });
    }

    /// A pod without a node came or changed.
    pub(crate) fn set(&mut self, mut pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(old) = self.pods.get(&uid).cloned() else {
            let (stand, gated) = (Stand::Gated, pod.gated);
            self.pods.insert(uid.clone(), Waiting { pod: pod.clone(), stand, attempts: 0, since: now });
            self.replace(pod);
            if !gated {
                self.stand(&uid, Stand::Active);
            }
            return;
        };
        // A nomination of ours that the API does not show yet.
        if pod.nominated.is_none()
            && matches!(old.stand, Stand::InFlight { .. })
            && old.pod.nominated.is_some()
        {
            Arc::make_mut(&mut pod).nominated = old.pod.nominated.clone();
        }
        let news = differs(&old.pod, &pod);
        let gated = pod.gated;
        self.replace(pod);
        match old.stand {
            Stand::InFlight { mut changes } if news => {
                changes.push(Change::NodeChanged);
                self.stand(&uid, Stand::InFlight { changes });
            }
            Stand::InFlight { .. } => {}
            _ if gated => self.stand(&uid, Stand::Gated),
            Stand::Gated => self.ready(&uid, now),
            Stand::Unschedulable { .. } if news => self.ready(&uid, now),
            _ => {}
        }
    }

    /// The pod has a node or is gone.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.stand(uid, Stand::Gated);
        self.pods.remove(uid);
        self.nominees.remove(uid);
    }

    /// The pod as last seen.
    pub(crate) fn get(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.get(uid).map(|w| &w.pod)
    }

    /// The next pod to schedule; it is in flight until its outcome is reported.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        let uid = self.active.first()?.2.clone();
        self.stand(&uid, Stand::InFlight { changes: Vec::new() });
        let waiting = self.pods.get_mut(&uid)?;
        waiting.attempts += 1;
        waiting.since = now;
        Some(waiting.pod.clone())
    }

    /// Outcome: no node took the pod.
    pub(crate) fn unschedulable(&mut self, uid: &str, refused: Vec<Plugin>, now: Instant) {
        let Some(Stand::InFlight { changes }) = self.pods.get(uid).map(|w| w.stand.clone()) else { return };
        if changes.iter().any(|&c| helps(&refused, c)) {
            self.ready(uid, now);
        } else {
            self.stand(uid, Stand::Unschedulable { refused, since: now });
        }
    }

    /// Outcome: something else failed; try again after the backoff.
    pub(crate) fn retry(&mut self, uid: &str, now: Instant) {
        if self.pods.get(uid).is_some_and(|w| matches!(w.stand, Stand::InFlight { .. })) {
            self.ready(uid, now);
        }
    }

    /// The pod is to take this node once its victims have left, or no node any more.
    pub(crate) fn nominate(&mut self, uid: &str, node: Option<String>) {
        if let Some(mut pod) = self.pods.get(uid).map(|w| w.pod.clone())
            && pod.nominated != node
        {
            Arc::make_mut(&mut pod).nominated = node;
            self.replace(pod);
        }
    }

    /// Takes a node from the pods of lower priority that wait for it: they may have to look elsewhere, and may do so at once.
    pub(crate) fn displace(&mut self, node: &str, priority: i32, now: Instant) -> Vec<Arc<Pod>> {
        let waiting = |p: &&Arc<Pod>| p.nominated.as_deref() == Some(node) && p.priority < priority;
        let displaced: Vec<_> =
            self.nominees.iter().filter_map(|uid| self.get(uid)).filter(waiting).cloned().collect();
        for pod in &displaced {
            self.nominate(&pod.uid, None);
            if self.pods.get(&pod.uid).is_some_and(|w| matches!(w.stand, Stand::Unschedulable { .. })) {
                self.ready(&pod.uid, now);
            }
        }
        displaced
    }

    /// Pods that wait for their victims, by node.
    pub(crate) fn nominated(&self) -> HashMap<String, Vec<Arc<Pod>>> {
        let mut out: HashMap<String, Vec<Arc<Pod>>> = HashMap::new();
        for pod in self.nominees.iter().filter_map(|uid| self.get(uid)) {
            if let Some(node) = &pod.nominated {
                out.entry(node.clone()).or_default().push(pod.clone());
            }
        }
        out
    }

    /// Something in the cluster changed: wakes the pods it may help.
    pub(crate) fn changed(&mut self, change: Change, now: Instant) {
        let mut woken = Vec::new();
        for uid in &self.attentive {
            let Some(waiting) = self.pods.get_mut(uid) else { continue };
            match &mut waiting.stand {
                Stand::Unschedulable { refused, .. } if helps(refused, change) => woken.push(uid.clone()),
                Stand::InFlight { changes } if !changes.contains(&change) => changes.push(change),
                _ => {}
            }
        }
        woken.iter().for_each(|uid| self.ready(uid, now));
    }

    /// Moves pods whose time has come.
    pub(crate) fn flush(&mut self, now: Instant) {
        while let Some((_, uid)) = self.timed.first().filter(|(ends, _)| *ends <= now).cloned() {
            // Whoever waited this long has no backoff left.
            self.stand(&uid, Stand::Active);
        }
    }

    /// When [`Queue::flush`] has something to do.
    pub(crate) fn next_flush(&self) -> Option<Instant> {
        self.timed.first().map(|(ends, _)| *ends)
    }
}

fn helps(refused: &[Plugin], change: Change) -> bool {
    // Refused by nobody: there were no nodes at all.
    if refused.is_empty() {
        change == Change::NodeChanged
    } else {
        refused.iter().any(|&p| may_help(p, change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FIRST_BACKOFF: Duration = Duration::from_secs(1);
    const LONGEST_WAIT: Duration = Duration::from_secs(300);

    #[test]
    fn every_wait_is_as_it_is_set() {
        let seconds = Duration::from_secs;
        let waits = Waits { first: seconds(3), longest: seconds(20), unschedulable: seconds(90) };
        let mut now = Instant::now();
        let mut q = Queue::new(waits);
        q.set(pod("a", 0), now);
        for want in [3, 6, 12, 20, 20] {
            assert!(q.pop(now).is_some());
            q.retry("a", now);
            assert_eq!(q.next_flush(), Some(now + seconds(want)));
            now += seconds(want);
            q.flush(now);
        }
        assert!(q.pop(now).is_some());
        q.unschedulable("a", vec![Plugin::NodeName], now);
        assert_eq!(q.next_flush(), Some(now + seconds(90)));
    }

    fn pod(uid: &str, priority: i32) -> Arc<Pod> {
        Arc::new(Pod { uid: uid.to_owned(), priority, ..Pod::default() })
    }

    #[test]
    fn priority_then_age() {
        let start = Instant::now();
        let mut q = Queue::default();
        for (n, (uid, priority)) in [("a", 0), ("b", 0), ("c", 5)].into_iter().enumerate() {
            q.set(pod(uid, priority), start + Duration::from_millis(n as u64));
        }
        let order: Vec<_> = std::iter::from_fn(|| q.pop(start)).map(|p| p.uid.clone()).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[test]
    fn backoff_doubles_to_ten_seconds() {
        let mut now = Instant::now();
        let mut q = Queue::default();
        q.set(pod("a", 0), now);
        for want in [1, 2, 4, 8, 10, 10] {
            assert!(q.pop(now).is_some());
            q.retry("a", now);
            assert_eq!(q.next_flush(), Some(now + Duration::from_secs(want)));
            now += Duration::from_secs(want);
            q.flush(now);
        }
    }

    #[test]
    fn a_removed_pod_leaves_nothing_behind() {
        let now = Instant::now();
        let mut q = Queue::default();
        for step in 0..4 {
            q.set(Arc::new(Pod { nominated: Some("n".into()), ..(*pod("a", 0)).clone() }), now);
            if step > 0 {
                q.pop(now);
            }
            match step {
                2 => q.unschedulable("a", vec![Plugin::NodeName], now),
                3 => q.retry("a", now),
                _ => {}
            }
            q.remove("a");
            assert!(q.pods.is_empty() && q.active.is_empty() && q.timed.is_empty());
            assert!(q.attentive.is_empty() && q.nominees.is_empty());
        }
    }

    #[test]
    fn only_a_change_that_may_help_wakes_a_pod() {
        let now = Instant::now();
        let mut q = Queue::default();
        q.set(pod("a", 0), now);
        q.pop(now);
        q.unschedulable("a", vec![Plugin::TaintToleration], now);
        q.changed(Change::PodGone, now);
        assert_eq!(q.next_flush(), Some(now + LONGEST_WAIT));
        q.changed(Change::NodeChanged, now);
        assert_eq!(q.next_flush(), Some(now + FIRST_BACKOFF));
    }

    #[test]
    fn a_node_that_goes_must_not_leave_a_pod_waiting_that_was_to_be_spread() {
        let now = Instant::now();
        for (plugin, wakes) in [(Plugin::PodTopologySpread, true), (Plugin::NodeResourcesFit, false)] {
            let mut q = Queue::default();
            q.set(pod("a", 0), now);
            q.pop(now);
            q.unschedulable("a", vec![plugin], now);
            q.changed(Change::NodeGone, now);
            assert_eq!(q.next_flush() == Some(now + FIRST_BACKOFF), wakes, "{plugin:?}");
        }
    }

    #[test]
    fn a_change_during_the_attempt_is_not_missed() {
        let now = Instant::now();
        let mut q = Queue::default();
        q.set(pod("a", 0), now);
        q.pop(now);
        q.changed(Change::PodGone, now);
        q.unschedulable("a", vec![Plugin::NodeResourcesFit], now);
        assert_eq!(q.next_flush(), Some(now + FIRST_BACKOFF));
    }

    #[test]
    fn a_more_important_pod_takes_the_node_others_wait_for() {
        let now = Instant::now();
        let mut q = Queue::default();
        for (uid, priority) in [("a", 1), ("b", 9)] {
            q.set(Arc::new(Pod { nominated: Some("n".into()), ..(*pod(uid, priority)).clone() }), now);
            q.pop(now);
            q.unschedulable(uid, vec![Plugin::NodeResourcesFit], now);
        }
        let displaced: Vec<_> = q.displace("n", 5, now).iter().map(|p| p.uid.clone()).collect();
        assert_eq!(displaced, ["a"]);
        assert_eq!(q.nominated()["n"].len(), 1);
        assert_eq!(q.next_flush(), Some(now + FIRST_BACKOFF));
    }

    #[test]
    fn a_gated_pod_waits_and_our_own_writes_wake_nobody() {
        let now = Instant::now();
        let mut q = Queue::default();
        q.set(Arc::new(Pod { gated: true, ..(*pod("a", 0)).clone() }), now);
        assert!(q.pop(now).is_none());
        q.set(pod("a", 0), now);
        assert!(q.pop(now).is_some());
        q.unschedulable("a", vec![Plugin::NodeName], now);
        q.set(Arc::new(Pod { unschedulable: Some("x".into()), ..(*pod("a", 0)).clone() }), now);
        assert_eq!(q.next_flush(), Some(now + LONGEST_WAIT));
    }
}
