//! Macros over lists and maps.

use super::super::ast::{Fold, Kind, Macro};
use super::super::cost;
use super::super::fault::{Error, Evaluated, fail, no_overload};
use super::super::value::{Key, Value};
use super::{Bound, Run};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was gathered so far.
#[derive(Default)]
struct Gathered {
    items: Vec<Value>,
    entries: BTreeMap<Key, Value>,
    held: usize,
}

fn truth(value: Value) -> Result<bool, Error> {
    match value {
        Value::Bool(is) => Ok(is),
        _ => no_overload(),
    }
}

impl Run<'_> {
    pub(super) fn fold(&mut self, fold: &Fold) -> Evaluated {
        let range = self.eval(&fold.range)?;
        if fold.kind == Macro::SortBy {
            // The list is bound, its keys are made, and it is sorted by them.
            self.pay(1)?;
            let keys = self.over(&Fold { kind: Macro::Map, ..fold.clone() }, &range)?;
            self.pay(1)?;
            return self.invoke("@sortByAssociatedKeys", true, &[range, keys]);
        }
        self.over(fold, &range)
    }

    fn over(&mut self, fold: &Fold, range: &Value) -> Evaluated {
        let items: Vec<(Value, Value)> = match range {
            Value::List(items) => (0..).map(Value::Int).zip(items.iter().cloned()).collect(),
            Value::Map(entries) => entries.iter().map(|(k, v)| (k.value(), v.clone())).collect(),
            _ => return no_overload(),
        };
        let is_map = matches!(range, Value::Map(_));
        let mut gathered = Gathered::default();
        let (mut error, mut answer) = (None, None);
        for (key, value) in items {
            // Is the answer known? The accumulator is read, and turned round for `exists`.
            match fold.kind {
                Macro::All => self.pay(2)?,
                Macro::Exists => self.pay(3)?,
                _ => {}
            }
            if answer.is_some() {
                break;
            }
            let depth = self.bound.len();
            let single = if is_map { &key } else { &value };
            match &fold.second {
                Some(second) => {
                    self.bound.push(Bound::new(&fold.variable, key.clone()));
                    self.bound.push(Bound::new(second, value.clone()));
                }
                None => self.bound.push(Bound::new(&fold.variable, single.clone())),
            }
            let single = single.clone();
            let step = self.turn(fold, &single, &key, &mut gathered);
            self.bound.truncate(depth);
            match step {
                Ok(decided) => answer = decided,
                Err(Error::Cost) => return Err(Error::Cost),
                // What decides may still come.
                Err(e) if matches!(fold.kind, Macro::All | Macro::Exists) => error = Some(e),
                Err(e) => return Err(e),
            }
        }
        self.pay(if fold.kind == Macro::ExistsOne { 2 } else { 1 })?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        if let Some(error) = error {
            return Err(error);
        }
        Ok(match fold.kind {
            Macro::All => Value::Bool(true),
            Macro::Exists => Value::Bool(false),
            Macro::ExistsOne => Value::Bool(gathered.held == 1),
            Macro::TransformMap | Macro::TransformMapEntry => Value::Map(Arc::new(gathered.entries)),
            Macro::Map | Macro::Filter | Macro::TransformList | Macro::SortBy => {
                Value::list_of(gathered.items)
            }
        })
    }

    /// One turn; the answer, where this turn decides it.
    fn turn(
        &mut self,
        fold: &Fold,
        item: &Value,
        key: &Value,
        gathered: &mut Gathered,
    ) -> Result<Option<Value>, Error> {
        if let Some(filter) = &fold.filter
            && !truth(self.eval(filter)?)?
        {
            return Ok(None);
        }
        if matches!(fold.kind, Macro::All | Macro::Exists) {
            self.pay(1)?;
        }
        let value = self.eval(&fold.body)?;
        match fold.kind {
            Macro::All => return Ok((!truth(value)?).then_some(Value::Bool(false))),
            Macro::Exists => return Ok(truth(value)?.then_some(Value::Bool(true))),
            Macro::ExistsOne => {
                if truth(value)? {
                    self.pay(2)?;
                    gathered.held += 1;
                }
            }
            Macro::Filter => {
                if truth(value)? {
                    // The accumulator, a list of the item, both in one.
                    self.pay(1 + cost::LIST + 1 + 1)?;
                    gathered.items.push(item.clone());
                }
            }
            Macro::Map | Macro::TransformList | Macro::SortBy => {
                // A list of what is constant is constant.
                let constant = matches!(fold.body.kind, Kind::Literal(_));
                self.pay(1 + if constant { 0 } else { cost::LIST } + 1)?;
                gathered.items.push(value);
            }
            Macro::TransformMap => {
                self.pay(1 + 1 + 1)?;
                let Some(key) = key.key() else { return fail("unsupported key type") };
                gathered.insert(key, value)?;
            }
            Macro::TransformMapEntry => {
                self.pay(1 + 1)?;
                let Value::Map(entries) = value else { return no_overload() };
                for (key, value) in entries.iter() {
                    gathered.insert(key.clone(), value.clone())?;
                }
            }
        }
        Ok(None)
    }
}

impl Gathered {
    fn insert(&mut self, key: Key, value: Value) -> Result<(), Error> {
        if self.entries.contains_key(&key) {
            return fail(format!("insert failed: key {} already exists", key.text()));
        }
        self.entries.insert(key, value);
        Ok(())
    }
}
