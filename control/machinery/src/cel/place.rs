//! Where a value stands among the variables' fields.
//!
//! Upstream keeps a place as a Go slice and makes the next one by `append`: where there is room behind a slice, two places made
//! from one share it, and the later one changes what the earlier one says. Estimates follow from that (of a loop over `x.a` whose
//! body reads `x.b`, with `x` an item of `self.list`), and rules are accepted or refused by them: so places here share as slices do.

use std::cell::RefCell;
use std::rc::Rc;

/// The steps to a value: a variable, then fields, `@items`, `@keys`, `@values`, `@indices`. None for what is at no place.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    shared: Rc<RefCell<Vec<String>>>,
    length: usize,
    /// For how many steps there is room: doubled when it is full, as Go doubles small slices.
    room: usize,
}

impl Place {
    /// A variable's, or none.
    pub(super) fn of(name: &str) -> Self {
        Place::default().step(name)
    }

    /// One step further.
    pub(super) fn step(&self, name: &str) -> Self {
        let length = self.length + 1;
        if length > self.room {
            let mut steps = self.steps();
            steps.push(name.to_owned());
            return Place { shared: Rc::new(RefCell::new(steps)), length, room: (self.room * 2).max(1) };
        }
        let mut steps = self.shared.borrow_mut();
        match steps.get_mut(self.length) {
            Some(step) => name.clone_into(step),
            None => steps.push(name.to_owned()),
        }
        drop(steps);
        Place { shared: self.shared.clone(), length, room: self.room }
    }

    /// As they are now.
    pub(super) fn steps(&self) -> Vec<String> {
        self.shared.borrow().iter().take(self.length).cloned().collect()
    }
}
