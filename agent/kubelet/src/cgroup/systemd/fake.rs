//! A systemd for tests.

use super::{EXISTS, MANAGER, NO_UNIT, PATH};
use crate::dbus::fake::{Bus, Reply};
use crate::dbus::message::Message;
use crate::dbus::wire::Value;

/// How its jobs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// They do what they are for.
    Succeed,
    /// They do not.
    Fail,
    /// None is made to start a unit: it is there.
    Exists,
    /// None is made to stop a unit: there is none.
    None,
    /// They fail, but a stranger says before that they succeeded.
    FailBehindAStranger,
}

/// A systemd whose jobs end in that way; each is preceded by the end of a job of somebody else.
pub(crate) fn systemd(jobs: Jobs) -> Bus {
    systemd_of(jobs, "252.22-1~deb12u1")
}

/// The same of a version.
pub(crate) fn systemd_of(jobs: Jobs, version: &'static str) -> Bus {
    Bus::start(move |call| match (call.member.as_str(), jobs) {
        ("Get", _) => vec![Reply::Return(vec![Value::Variant(Box::new(Value::text(version)))])],
        ("StartTransientUnit", Jobs::Exists) => vec![Reply::Error(EXISTS, "there is one")],
        ("StopUnit", Jobs::None) => vec![Reply::Error(NO_UNIT, "there is none")],
        ("StartTransientUnit" | "StopUnit", _) => job(jobs),
        ("ResetFailedUnit", _) => vec![Reply::Error(NO_UNIT, "it did not fail")],
        _ => vec![Reply::Return(Vec::new())],
    })
}

/// The properties that a call sets, by name.
pub(crate) fn set(call: &Message) -> Vec<(String, Value)> {
    let lists = call.body.iter().filter_map(|value| match value {
        Value::Array(of, properties) if of == "(sv)" => Some(properties),
        _ => None,
    });
    let one = |property: &Value| match property {
        Value::Struct(parts) => match parts.as_slice() {
            [Value::Text(name), Value::Variant(value)] => Some((name.clone(), (**value).clone())),
            _ => None,
        },
        _ => None,
    };
    lists.flatten().filter_map(one).collect()
}

fn job(jobs: Jobs) -> Vec<Reply> {
    let removed = |job: &str, result: &str| {
        let (unit, result) = (Value::text("kubepods.slice"), Value::text(result));
        vec![Value::U32(1), Value::Path(job.to_owned()), unit, result]
    };
    let result = if matches!(jobs, Jobs::Fail | Jobs::FailBehindAStranger) { "failed" } else { "done" };
    let mut replies = vec![
        Reply::Signal(PATH, MANAGER, "JobRemoved", removed("/job/1", result)),
        Reply::Return(vec![Value::Path("/job/2".into())]),
    ];
    if jobs == Jobs::FailBehindAStranger {
        replies.push(Reply::SignalAs(":1.99", PATH, MANAGER, "JobRemoved", removed("/job/2", "done")));
    }
    replies.push(Reply::Signal(PATH, MANAGER, "JobRemoved", removed("/job/2", result)));
    replies
}
