//! Which webhooks are called once more: those that asked for it and have seen an object that was changed afterwards.
//! Upstream: `webhook/mutating/reinvocationcontext.go`.

use serde_json::Value;
use std::collections::BTreeSet;

/// What the two rounds of mutating admission know.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    second: bool,
    wanted: bool,
    pub webhooks: Round,
    pub policies: Round,
}

impl Rounds {
    /// After the first round: begins the second, if anything wants it.
    pub(crate) fn again(&mut self) -> bool {
        self.second = std::mem::take(&mut self.wanted) && !self.second;
        self.second
    }

    pub(crate) fn is_second(&self) -> bool {
        self.second
    }

    /// Something changed the object after others had seen it.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }
}

/// The same for one kind of step.
#[derive(Debug, Default)]
pub(crate) struct Round {
    output: Option<Value>,
    called: BTreeSet<String>,
    due: BTreeSet<String>,
}

impl Round {
    /// Whatever was called before and wants to see changes is due again.
    pub(crate) fn changed(&mut self) {
        self.due.append(&mut self.called);
    }

    /// The step begins its second round: were there changes since its first?
    pub(crate) fn begin_second(&mut self, object: Option<&Value>) {
        if self.output.as_ref() != object {
            self.changed();
        }
    }

    /// The step has ended a round.
    pub(crate) fn end(&mut self, object: Option<&Value>) {
        self.output = object.cloned();
    }

    /// Somebody who wants to see later changes has been called.
    pub(crate) fn note(&mut self, identity: &str) {
        self.called.insert(identity.to_owned());
    }

    pub(crate) fn is_due(&self, identity: &str) -> bool {
        self.due.contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_is_called_again_when_the_second_changed_something() {
        let mut rounds = Rounds::default();
        rounds.webhooks.note("a");
        rounds.webhooks.changed();
        rounds.want();
        rounds.webhooks.note("b");
        rounds.webhooks.end(Some(&json!(1)));
        assert!(rounds.again() && rounds.is_second());
        rounds.webhooks.begin_second(Some(&json!(1)));
        assert!(rounds.webhooks.is_due("a") && !rounds.webhooks.is_due("b"));
        rounds.want();
        assert!(!rounds.again(), "there is no third round");
    }

    #[test]
    fn a_change_by_other_steps_makes_all_due() {
        let mut round = Round::default();
        round.note("a");
        round.end(Some(&json!(1)));
        round.begin_second(Some(&json!(2)));
        assert!(round.is_due("a"));
    }
}
