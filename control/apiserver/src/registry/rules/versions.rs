//! Objects in the versions that others wrote through, as a webhook gave them.

use machinery::apply::versions::Halt;
use serde_json::Value;

/// What a definition's webhook has said while one write is looked at.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<Answer>);

#[derive(Debug)]
struct Answer {
    asked: Value,
    api_version: String,
    said: Value,
}

impl Answers {
    /// Notes what objects are in a version, in their order.
    pub(crate) fn note(&mut self, asked: Vec<Value>, api_version: &str, said: Vec<Value>) {
        let answer =
            |(asked, said): (Value, Value)| Answer { asked, api_version: api_version.to_owned(), said };
        self.0.extend(asked.into_iter().zip(said).map(answer));
    }

    /// Objects in a version.
    ///
    /// # Errors
    /// [`Halt::Wants`] with those it was not asked for yet.
    pub(crate) fn of(&self, objects: &[&Value], api_version: &str) -> Result<Vec<Value>, Halt> {
        let known = |object: &Value| {
            let same = |answer: &&Answer| answer.api_version == api_version && answer.asked == *object;
            self.0.iter().find(same).map(|answer| answer.said.clone())
        };
        let answers: Vec<Option<Value>> = objects.iter().map(|object| known(object)).collect();
        let unknown = objects.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let unknown: Vec<Value> = unknown.map(|(object, _)| (*object).clone()).collect();
        match unknown.is_empty() {
            true => Ok(answers.into_iter().flatten().collect()),
            false => Err(Halt::Wants { objects: unknown, api_version: api_version.to_owned() }),
        }
    }
}
