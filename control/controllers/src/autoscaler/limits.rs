//! What becomes of a wish for replicas: steadied by the wishes of the last minutes, kept within bounds and rates. Pure but for [`History`],
//! which the caller keeps.

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};
use std::time::{Duration, Instant};

/// Nothing older is asked for, unless wishes count for longer: the longest window and the longest period the API admits are shorter.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What an autoscaler wished and did lately.
#[derive(Debug)]
pub(super) struct History {
    /// For how long the highest wish counts before replicas are taken away, where the autoscaler does not say.
    steady: Duration,
    wishes: Vec<(i32, Instant)>,
    added: Vec<(i32, Instant)>,
    removed: Vec<(i32, Instant)>,
}

/// A condition's status, reason and message.
pub(super) type ConditionValue = (bool, &'static str, &'static str);

/// The bounds of one decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub min: i32,
    pub max: i32,
    pub current: i32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub replicas: i32,
    /// For the condition `AbleToScale`.
    pub able: ConditionValue,
    /// For the condition `ScalingLimited`.
    pub limited: ConditionValue,
}

const READY: ConditionValue = (true, "ReadyForNewScale", "recommended size matches current size");
const DOWN_STEADIED: ConditionValue = (
    true,
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STEADIED: ConditionValue = (
    true,
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// Rules with nothing left open.
struct Rules {
    window: Duration,
    select: Select,
    policies: Vec<HPAScalingPolicy>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Select {
    Most,
    Least,
    Disabled,
}

impl Rules {
    fn new(rules: Option<&HPAScalingRules>, window: Duration, defaults: &[(&str, i32)]) -> Self {
        let stated = rules.and_then(|r| r.stabilization_window_seconds).and_then(|s| u64::try_from(s).ok());
        let select = match rules.and_then(|r| r.select_policy.as_deref()) {
            Some("Disabled") => Select::Disabled,
            Some("Min") => Select::Least,
            _ => Select::Most,
        };
        let default = |(kind, value): &(&str, i32)| HPAScalingPolicy {
            type_: (*kind).to_owned(),
            value: *value,
            period_seconds: 15,
        };
        let policies = rules.and_then(|r| r.policies.clone()).filter(|p| !p.is_empty());
        Self {
            window: stated.map_or(window, Duration::from_secs),
            select,
            policies: policies.unwrap_or_else(|| defaults.iter().map(default).collect()),
        }
    }

    fn up(behavior: &HorizontalPodAutoscalerBehavior) -> Self {
        Self::new(behavior.scale_up.as_ref(), Duration::ZERO, &[("Percent", 100), ("Pods", 4)])
    }

    fn down(behavior: &HorizontalPodAutoscalerBehavior, steady: Duration) -> Self {
        Self::new(behavior.scale_down.as_ref(), steady, &[("Percent", 100)])
    }
}

impl History {
    pub(super) fn new(steady: Duration) -> Self {
        Self { steady, wishes: Vec::new(), added: Vec::new(), removed: Vec::new() }
    }

    /// What is asked before the first metric counts as wished.
    pub(super) fn begin(&mut self, current: i32, now: Instant) {
        if self.wishes.is_empty() {
            self.wishes.push((current, now));
        }
    }

    /// Remembers a change of replicas.
    pub(super) fn changed(&mut self, from: i32, to: i32, now: Instant) {
        let (list, by) =
            if to > from { (&mut self.added, to - from) } else { (&mut self.removed, from - to) };
        list.retain(|(_, at)| now.duration_since(*at) <= REMEMBERED);
        list.push((by, now));
    }

    fn wish(&mut self, wish: i32, now: Instant) {
        let remembered = self.steady.max(REMEMBERED);
        self.wishes.retain(|(_, at)| now.duration_since(*at) <= remembered);
        self.wishes.push((wish, now));
    }

    fn in_period(list: &[(i32, Instant)], period: i32, now: Instant) -> i32 {
        let period = Duration::from_secs(u64::try_from(period).unwrap_or(0));
        list.iter().filter(|(_, at)| now.duration_since(*at) < period).map(|(by, _)| by).sum()
    }

    /// Decides about a wish.
    pub(super) fn decide(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        bounds: Bounds,
        wish: i32,
        now: Instant,
    ) -> Decision {
        let (steadied, able) = match behavior {
            None => self.steady_down(wish, now),
            Some(behavior) => self.steady(behavior, bounds, wish, now),
        };
        let (replicas, (reason, message)) = match behavior {
            None => plain_bounds(bounds, steadied),
            Some(behavior) => self.rated_bounds(behavior, bounds, steadied, now),
        };
        Decision { replicas, able, limited: (replicas != steadied, reason, message) }
    }

    fn steady_down(&mut self, wish: i32, now: Instant) -> (i32, ConditionValue) {
        let recent = self.wishes.iter().filter(|(_, at)| now.duration_since(*at) <= self.steady);
        let highest = recent.map(|(wish, _)| *wish).fold(wish, i32::max);
        self.wish(wish, now);
        (highest, if highest == wish { READY } else { DOWN_STEADIED })
    }

    fn steady(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: Bounds,
        wish: i32,
        now: Instant,
    ) -> (i32, ConditionValue) {
        let since = |window: Duration| {
            let recent = self.wishes.iter().filter(move |(_, at)| now.duration_since(*at) < window);
            recent.map(|(wish, _)| *wish)
        };
        let lowest = since(Rules::up(behavior).window).fold(wish, i32::min);
        let highest = since(Rules::down(behavior, self.steady).window).fold(wish, i32::max);
        let steadied = bounds.current.max(lowest).min(highest);
        self.wish(wish, now);
        let able = match steadied == wish {
            true => READY,
            false if wish >= bounds.current => UP_STEADIED,
            false => DOWN_STEADIED,
        };
        (steadied, able)
    }

    /// The most (or fewest) replicas the rules allow now.
    fn rate(&self, rules: &Rules, current: i32, up: bool, now: Instant) -> i32 {
        if rules.select == Select::Disabled {
            return current;
        }
        let proposals = rules.policies.iter().map(|policy| {
            let changed = |list| Self::in_period(list, policy.period_seconds, now);
            let start = current - changed(&self.added) + changed(&self.removed);
            let share = f64::from(policy.value) / 100.0;
            match (policy.type_.as_str(), up) {
                ("Pods", true) => start.saturating_add(policy.value),
                ("Pods", false) => start.saturating_sub(policy.value),
                // upwards: at least one, or a small number would never grow
                (_, true) => (f64::from(start) * (1.0 + share)).ceil() as i32,
                (_, false) => (f64::from(start) * (1.0 - share)) as i32,
            }
        });
        let boldest = (rules.select == Select::Most) == up;
        let chosen = if boldest { proposals.max() } else { proposals.min() };
        chosen.unwrap_or(current)
    }

    fn rated_bounds(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: Bounds,
        wish: i32,
        now: Instant,
    ) -> (i32, (&'static str, &'static str)) {
        let Bounds { min, max, current } = bounds;
        if wish > current {
            let rate = self.rate(&Rules::up(behavior), current, true, now).max(current);
            let (most, why) = if max > rate { (rate, TOO_FAST_UP) } else { (max, TOO_MANY) };
            if wish > most {
                return (most, why);
            }
        } else if wish < current {
            let rate = self.rate(&Rules::down(behavior, self.steady), current, false, now).min(current);
            let (fewest, why) = if min < rate { (rate, TOO_FAST_DOWN) } else { (min, TOO_FEW) };
            if wish < fewest {
                return (fewest, why);
            }
        }
        (wish, WITHIN)
    }
}

/// Without a behaviour: twice as many at once at most, though four are always allowed.
fn plain_bounds(bounds: Bounds, wish: i32) -> (i32, (&'static str, &'static str)) {
    let rate = bounds.current.saturating_mul(2).max(4);
    let (most, why) = if bounds.max > rate { (rate, TOO_FAST_UP) } else { (bounds.max, TOO_MANY) };
    match wish {
        wish if wish < bounds.min => (bounds.min, TOO_FEW),
        wish if wish > most => (most, why),
        wish => (wish, WITHIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn history() -> History {
        History::new(Duration::from_secs(300))
    }

    #[test]
    fn how_long_a_wish_counts_is_as_it_is_set() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let slow: HorizontalPodAutoscalerBehavior =
            serde_json::from_value(json!({"scaleUp": {"stabilizationWindowSeconds": 0}})).unwrap();
        for behavior in [None, Some(&slow)] {
            for (steady, replicas) in [(300, 8), (10, 2), (7200, 8)] {
                let mut history = History::new(Duration::from_secs(steady));
                history.begin(8, start);
                let early = history.decide(behavior, bounds(8), 2, at(30)).replicas;
                assert_eq!(early, replicas, "{steady} seconds, {behavior:?}");
                let late = history.decide(behavior, bounds(8), 2, at(4000)).replicas;
                assert_eq!(late == 8, steady > 4000, "{steady} seconds, {behavior:?}");
            }
        }
    }

    fn bounds(current: i32) -> Bounds {
        Bounds { min: 1, max: 20, current }
    }

    #[test]
    fn replicas_go_only_when_nobody_wished_more_for_five_minutes() {
        let (mut history, start) = (history(), Instant::now());
        history.begin(8, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let early = history.decide(None, bounds(8), 2, at(30));
        assert_eq!((early.replicas, early.able.1), (8, "ScaleDownStabilized"));
        let late = history.decide(None, bounds(8), 2, at(331));
        assert_eq!((late.replicas, late.able.1, late.limited.0), (2, "ReadyForNewScale", false));
    }

    #[test]
    fn without_behaviour_replicas_double_at_most() {
        let mut history = history();
        let decision = history.decide(None, bounds(3), 15, Instant::now());
        assert_eq!((decision.replicas, decision.limited.0, decision.limited.1), (6, true, "ScaleUpLimit"));
        let within = self::history().decide(None, bounds(1), 4, Instant::now());
        assert_eq!(within.limited.1, "DesiredWithinRange");
        let few = self::history().decide(None, bounds(3), 0, Instant::now());
        assert_eq!((few.replicas, few.limited.1), (1, "TooFewReplicas"));
    }

    #[test]
    fn rates_count_what_was_done_in_their_period() {
        let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}], "stabilizationWindowSeconds": 0},
            "scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0},
        }))
        .unwrap();
        let (mut history, start) = (history(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = history.decide(Some(&behavior), bounds(2), 10, at(0));
        assert_eq!((first.replicas, first.limited.1), (5, "ScaleUpLimit"));
        history.changed(2, 5, at(0));
        assert_eq!(history.decide(Some(&behavior), bounds(5), 10, at(30)).replicas, 5);
        assert_eq!(history.decide(Some(&behavior), bounds(5), 10, at(61)).replicas, 8);
        let down = history.decide(Some(&behavior), bounds(5), 1, at(90));
        assert_eq!((down.replicas, down.limited.1), (5, "ScaleDownLimit"));
    }
}
