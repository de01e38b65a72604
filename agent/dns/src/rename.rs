//! Questions asked under another name than the client's (a Corefile's `rewrite name`), and their answers given back under the client's. Pure.

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, Record};

/// A rule. CoreDNS' `prefix`, `substring` and `regex` are not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The whole name is meant, not names that end so.
    pub(crate) exact: bool,
    pub(crate) from: Name,
    pub(crate) to: Name,
}

impl Rule {
    /// What is asked in place of a name.
    pub(crate) fn apply(&self, name: &Name) -> Option<Name> {
        if !self.from.zone_of(name) {
            return None;
        }
        let more = name.iter().len() - self.from.iter().len();
        match (self.exact, more) {
            (_, 0) => Some(self.to.clone()),
            (true, _) => None,
            (false, _) => Name::from_labels(name.iter().take(more)).ok()?.append_name(&self.to).ok(),
        }
    }
}

/// A question that is asked under another name.
#[derive(Clone, Debug)]
pub(crate) struct Renamed {
    asked: Name,
    instead: Name,
}

impl Renamed {
    /// Puts what the first rule that fits says in the place of the name asked for.
    pub(crate) fn apply(rules: &[Rule], request: &mut Message) -> Option<Self> {
        let [query] = request.queries.as_mut_slice() else { return None };
        let instead = rules.iter().find_map(|rule| rule.apply(query.name()))?;
        let asked = query.name().clone();
        query.set_name(instead.clone());
        Some(Self { asked, instead })
    }

    /// Gives the answer the name that was asked for, since clients believe no other.
    pub(crate) fn back(&self, response: &mut Message) {
        for query in &mut response.queries {
            if *query.name() == self.instead {
                query.set_name(self.asked.clone());
            }
        }
        let records: [&mut Vec<Record>; 2] = [&mut response.answers, &mut response.additionals];
        for record in records.into_iter().flatten() {
            if record.name == self.instead {
                record.name = self.asked.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::name;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, RecordType};

    fn rule(exact: bool, from: &str, to: &str) -> Rule {
        Rule { exact, from: name(from).unwrap(), to: name(to).unwrap() }
    }

    #[test]
    fn whole_names_and_ends_are_replaced() {
        let of = |rule: &Rule, text: &str| rule.apply(&name(text).unwrap()).map(|name| name.to_ascii());
        let exact = rule(true, "db.example", "db.default.svc.cluster.local");
        assert_eq!(of(&exact, "DB.example").unwrap(), "db.default.svc.cluster.local.");
        assert_eq!((of(&exact, "a.db.example"), of(&exact, "example")), (None, None));
        let end = rule(false, "old.example", "new.example");
        assert_eq!(of(&end, "a.b.old.example").unwrap(), "a.b.new.example.");
        assert_eq!((of(&end, "hold.example"), of(&end, "old.example.org")), (None, None));
    }

    #[test]
    fn an_answer_must_not_bear_another_name_than_was_asked_for() {
        let mut request = Message::new(7, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(name("Db.example").unwrap(), RecordType::A));
        let rules =
            [rule(true, "other.example", "x"), rule(true, "db.example", "db.default.svc.cluster.local")];
        let renamed = Renamed::apply(&rules, &mut request).unwrap();
        assert_eq!(request.queries[0].name().to_ascii(), "db.default.svc.cluster.local.");
        let mut response = request.clone();
        for owner in ["db.default.svc.cluster.local", "else.example"] {
            let data = RData::A(A::new(192, 0, 2, 1));
            response.add_answer(Record::from_rdata(name(owner).unwrap(), 9, data));
        }
        renamed.back(&mut response);
        assert_eq!(response.queries[0].name().to_ascii(), "Db.example.");
        let owners: Vec<String> = response.answers.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(owners, ["Db.example.", "else.example."]);
        assert!(Renamed::apply(&rules[..1], &mut request).is_none());
    }
}
