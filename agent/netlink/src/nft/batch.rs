//! A transaction as bytes: begin, messages, end. The kernel does all of it or nothing. Pure.

use super::element::Element;
use super::expression::Expression;
use super::object::{Chain, Set, Table};
use crate::attribute::Writer;
use crate::message::{ACK, APPEND, CREATE, EXCL, REQUEST, Request, write};

const SUBSYSTEM: u16 = 10 << 8;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
pub(crate) const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
pub(crate) const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
/// An attribute's length is 16 bits; a list of elements is split before it comes near.
const LONGEST_LIST: usize = 60_000;

/// A transaction. Messages are numbered from 0, the first says "begin".
#[derive(Debug)]
pub struct Batch {
    pub(crate) writer: Writer,
    /// Where each message begins.
    pub(crate) starts: Vec<usize>,
    /// What each message is about, for errors.
    subjects: Vec<Subject>,
    sets: u32,
}

#[derive(Clone, Debug)]
struct Subject {
    verb: &'static str,
    table: Option<Table>,
    name: String,
}

impl Default for Batch {
    fn default() -> Self {
        let mut batch = Self { writer: Writer::default(), starts: Vec::new(), subjects: Vec::new(), sets: 0 };
        batch.control(BEGIN, "begin a transaction");
        batch
    }
}

impl Batch {
    /// Whether nothing would be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.len() == 1
    }

    /// How many messages there are to do.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Adds the table if it is not there.
    pub fn add_table(&mut self, table: Table) {
        self.message(NEW_TABLE, CREATE, "add table", table, "", |w| w.text(1, table.name));
    }

    /// Deletes the table with everything in it; it must be there.
    pub fn delete_table(&mut self, table: Table) {
        self.message(DELETE_TABLE, 0, "delete table", table, "", |w| w.text(1, table.name));
    }

    /// Makes the table empty, whether it was there or not.
    pub fn replace_table(&mut self, table: Table) {
        self.add_table(table);
        self.delete_table(table);
        self.add_table(table);
    }

    /// Adds a set or map if it is not there.
    pub fn add_set(&mut self, table: Table, set: &Set) {
        self.sets += 1;
        let id = self.sets;
        self.message(NEW_SET, CREATE, "add set", table, &set.name, |w| set.write(w, table.name, id));
    }

    /// Deletes a set or map with its elements; no rule may read it any more.
    pub fn delete_set(&mut self, table: Table, set: &str) {
        self.message(DELETE_SET, 0, "delete set", table, set, |w| {
            w.text(1, table.name);
            w.text(2, set);
        });
    }

    /// Adds a chain if it is not there.
    pub fn add_chain(&mut self, table: Table, chain: &Chain) {
        self.message(NEW_CHAIN, CREATE, "add chain", table, &chain.name, |w| chain.write(w, table.name));
    }

    /// Deletes a chain with its rules; nothing may lead to it any more.
    pub fn delete_chain(&mut self, table: Table, chain: &str) {
        self.message(DELETE_CHAIN, 0, "delete chain", table, chain, |w| {
            w.text(1, table.name);
            w.text(3, chain);
        });
    }

    /// Deletes a chain's rules.
    pub fn flush_chain(&mut self, table: Table, chain: &str) {
        self.message(DELETE_RULE, 0, "flush chain", table, chain, |w| {
            w.text(1, table.name);
            w.text(2, chain);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table, chain: &str, rule: &[Expression]) {
        self.message(NEW_RULE, CREATE | APPEND, "add a rule to chain", table, chain, |w| {
            w.text(1, table.name);
            w.text(2, chain);
            w.nested(4, |w| rule.iter().for_each(|expression| expression.write(w)));
        });
    }

    /// Adds elements to a set.
    pub fn add_elements(&mut self, table: Table, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, "add elements to set", table, set, elements);
    }

    /// Adds elements to a set; none of them may be there.
    pub fn add_new_elements(&mut self, table: Table, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE | EXCL, "add elements to set", table, set, elements);
    }

    /// Deletes elements of a set; each must be there.
    pub fn delete_elements(&mut self, table: Table, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, "delete elements of set", table, set, elements);
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, table: Table, set: &str) {
        self.message(DELETE_ELEMENT, 0, "flush set", table, set, |w| {
            w.text(1, table.name);
            w.text(2, set);
        });
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &'static str,
        table: Table,
        set: &str,
        mut rest: &[Element],
    ) {
        while !rest.is_empty() {
            let mut taken = 0;
            self.message(kind, flags, verb, table, set, |w| {
                w.text(1, table.name);
                w.text(2, set);
                let at = w.bytes.len();
                w.bytes.extend_from_slice(&[0; 4]);
                for element in rest {
                    if w.bytes.len() - at > LONGEST_LIST {
                        break;
                    }
                    element.write(w);
                    taken += 1;
                }
                w.close(at, 3);
            });
            rest = &rest[taken..];
        }
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &'static str,
        table: Table,
        name: &str,
        content: impl FnOnce(&mut Writer),
    ) {
        self.subjects.push(Subject { verb, table: Some(table), name: name.to_owned() });
        self.starts.push(self.writer.bytes.len());
        write(&mut self.writer, SUBSYSTEM | kind, REQUEST | flags, 0, |w| {
            w.bytes.extend_from_slice(&header(table));
            content(w);
        });
    }

    fn control(&mut self, kind: u16, verb: &'static str) {
        self.subjects.push(Subject { verb, table: None, name: String::new() });
        self.starts.push(self.writer.bytes.len());
        // the last byte names the subsystem the transaction is for
        write(&mut self.writer, kind, REQUEST, 0, |w| w.bytes.extend_from_slice(&[0, 0, 0, 10]));
    }

    /// How many numbers it takes: one a message, and one for its end.
    pub(crate) fn numbers(&self) -> usize {
        self.starts.len() + 1
    }

    /// The finished bytes, numbered from `sequence`; the last message before the end asks for an answer.
    pub(crate) fn finish(mut self, sequence: u32) -> Finished {
        let last = self.starts.len() - 1;
        self.control(END, "end a transaction");
        for (number, start) in (sequence..).zip(&self.starts) {
            self.writer.bytes[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        }
        let at = self.starts[last] + 6;
        let flags = u16::from_ne_bytes([self.writer.bytes[at], self.writer.bytes[at + 1]]) | ACK;
        self.writer.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        Finished { bytes: self.writer.bytes, subjects: self.subjects, first: sequence, last }
    }
}

/// A transaction ready to be sent.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) bytes: Vec<u8>,
    subjects: Vec<Subject>,
    first: u32,
    /// Index of the message that is answered when all is done.
    pub(crate) last: usize,
}

impl Finished {
    /// The index of an answer's message; `None` for an answer to another transaction.
    pub(crate) fn index(&self, sequence: u32) -> Option<usize> {
        let index = usize::try_from(sequence.wrapping_sub(self.first)).ok()?;
        (index < self.subjects.len()).then_some(index)
    }

    /// What a message is about: `add elements to set endpoints of table ip windlass`.
    pub(crate) fn subject(&self, index: usize) -> String {
        let Some(Subject { verb, table, name }) = self.subjects.get(index) else { return String::new() };
        match table {
            None => (*verb).to_owned(),
            Some(table) if name.is_empty() => format!("{verb} {} {}", table.family.name(), table.name),
            Some(table) => format!("{verb} {name} of table {} {}", table.family.name(), table.name),
        }
    }
}

/// The fixed part of a message: family, version, resource.
fn header(table: Table) -> [u8; 4] {
    [table.family.number(), 0, 0, 0]
}

/// A question about nftables.
pub(crate) fn question(kind: u16, table: Table, attributes: impl FnOnce(&mut Writer)) -> Request {
    Request::new(SUBSYSTEM | kind, 0, &header(table), attributes)
}
