//! `windlass member`: on a server with a member of its own, whether that runs or not.

use super::health::{self, PATIENCE};
use super::place::Place;
use crate::cli::{MemberCommand, MemberList, MemberRemove};
use crate::{output, settings};
use anyhow::{Context as _, bail, ensure};
use etcd::v3::Member;
use etcd::{Client, Config};
use futures::future::join_all;
use serde::Serialize;
use std::path::Path;

pub(crate) async fn run(command: MemberCommand) -> anyhow::Result<()> {
    match command {
        MemberCommand::List(flags) => list(&flags).await,
        MemberCommand::Remove(flags) => remove(&flags).await,
    }
}

/// How members are spoken to from this machine, by what its server has on disk.
fn connection(data_dir: &Path) -> anyhow::Result<Config> {
    let dir = settings::server_dir(data_dir);
    let place = Place::of(&dir);
    let state = place.read()?;
    let state = state.with_context(|| format!("no member of etcd is in {}", dir.display()))?;
    let read = |below: &str| {
        let path = dir.join("pki").join(below);
        std::fs::read(&path).with_context(|| format!("read {}", path.display()))
    };
    let mut endpoints = state.endpoints();
    if endpoints.is_empty() {
        endpoints.push(state.client_url);
    }
    Ok(Config {
        endpoints,
        // A server that has not begun since there is a file of all trusts the one that signs.
        authorities: Some(read(&format!("{}.crt", pki::etcd::TRUSTED)).or_else(|_| read("etcd/ca.crt"))?),
        identity: Some((read("apiserver-etcd-client.crt")?, read("apiserver-etcd-client.key")?)),
        cluster: place.cluster()?,
    })
}

/// Where the members that this machine's server knows answer clients: `HOST:PORT`.
pub(crate) fn places(data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let endpoints = connection(data_dir)?.endpoints.into_iter();
    Ok(endpoints.map(|url| url.trim_start_matches("https://").to_owned()).collect())
}

/// A client of the members that this machine's server knows.
pub(crate) fn client(data_dir: &Path) -> anyhow::Result<Client> {
    Ok(Client::new(&connection(data_dir)?)?)
}

/// The other members that a server knows.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// All, by name.
    pub(crate) known: Vec<String>,
    /// Those that run.
    pub(crate) running: Vec<String>,
}

/// Asks each of the other members by itself: one that has no majority runs all the same, and has it again when the others come back.
///
/// # Errors
/// It is not known how they are spoken to.
pub(crate) async fn others(data_dir: &Path) -> anyhow::Result<Others> {
    let Some(state) = Place::of(&settings::server_dir(data_dir)).read()? else {
        return Ok(Others::default());
    };
    let others: Vec<_> = state.members.iter().filter(|known| known.name != state.name).collect();
    if others.is_empty() {
        return Ok(Others::default());
    }
    let connection = connection(data_dir)?;
    let asked = others.iter().map(|known| {
        let alone = Config { endpoints: known.client_urls.clone(), ..connection.clone() };
        async move {
            let answer = async { Client::new(&alone).ok()?.member_list_of_one().await.ok() };
            tokio::time::timeout(PATIENCE, answer).await.ok().flatten().is_some()
        }
    });
    let runs = join_all(asked).await;
    let name = |known: &&super::place::Known| match known.name.as_str() {
        "" => known.client_urls.join(","),
        name => name.to_owned(),
    };
    Ok(Others {
        running: others.iter().zip(&runs).filter(|(_, runs)| **runs).map(|(known, _)| name(known)).collect(),
        known: others.iter().map(name).collect(),
    })
}

/// Takes this machine's own member, whose server is stopped, out of etcd where others run; gives its name. Those that stay would count its vote for ever.
///
/// # Errors
/// The others cannot decide it, or too few of them are well.
pub(crate) async fn leave(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let Some(state) = Place::of(&settings::server_dir(data_dir)).read()? else { return Ok(None) };
    if others(data_dir).await?.running.is_empty() {
        return Ok(None);
    }
    let connection = connection(data_dir)?;
    let client = Client::new(&connection)?;
    let members = client.member_list().await?.members;
    // It never had a place there, or was removed already.
    let Some(own) = members.iter().find(|member| member.name == state.name) else { return Ok(None) };
    take_out(&connection, &client, &members, own).await?;
    Ok(Some(state.name))
}

/// Removes a member, unless that takes the majority from the others.
async fn take_out(
    connection: &Config,
    client: &Client,
    members: &[Member],
    member: &Member,
) -> anyhow::Result<()> {
    // One that has not started yet has none.
    let name = if member.name.is_empty() { id(member) } else { member.name.clone() };
    ensure!(
        member.is_learner || members.iter().filter(|member| !member.is_learner).count() > 1,
        "{name} is the only member that has the cluster's objects",
    );
    let well = health::well(connection, members).await;
    ensure!(
        member.is_learner || health::keeps_majority(members, member.id, &well),
        "without {name}, too few of those left are well to decide anything ({} of {} members are): bring one back first",
        well.len(),
        members.len()
    );
    client.member_remove(member.id).await.with_context(|| format!("remove member {name}"))?;
    Ok(())
}

/// A member as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: String,
    name: String,
    /// `voter` or `learner`.
    role: &'static str,
    healthy: bool,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

async fn list(flags: &MemberList) -> anyhow::Result<()> {
    let connection = connection(&flags.data_dir)?;
    let client = Client::new(&connection)?;
    let members = match client.member_list().await {
        Ok(said) => said.members,
        Err(failure) => {
            // Who has lost the majority wants to see the members all the more.
            let said = client.member_list_of_one().await?;
            eprintln!("warning: {failure}; these are the members as one of them knows them");
            said.members
        }
    };
    let listed = join_all(members.into_iter().map(|member| describe(&connection, member))).await;
    let mut rows =
        vec![["ID", "NAME", "ROLE", "HEALTHY", "PEER URL", "CLIENT URL"].map(str::to_owned).to_vec()];
    for one in &listed {
        rows.push(vec![
            one.id.clone(),
            one.name.clone(),
            one.role.to_owned(),
            one.healthy.to_string(),
            one.peer_urls.join(","),
            one.client_urls.join(","),
        ]);
    }
    output::print(flags.output, &output::table(&rows), &listed)
}

async fn describe(connection: &Config, member: Member) -> Listed {
    Listed {
        id: id(&member),
        // Who has not started listens nowhere.
        healthy: !member.client_ur_ls.is_empty() && health::answers(connection, &member).await,
        name: member.name,
        role: if member.is_learner { "learner" } else { "voter" },
        peer_urls: member.peer_ur_ls,
        client_urls: member.client_ur_ls,
    }
}

fn id(member: &Member) -> String {
    format!("{:x}", member.id)
}

async fn remove(flags: &MemberRemove) -> anyhow::Result<()> {
    let connection = connection(&flags.place.data_dir)?;
    let client = Client::new(&connection)?;
    let members = client.member_list().await?.members;
    let found = find(&members, &flags.name)?;
    take_out(&connection, &client, &members, found).await?;
    let text = format!("removed {} ({})\n", found.name, id(found));
    output::print(flags.place.output, &text, &id(found))
}

/// By name or id; an id is hexadecimal, as etcdctl prints it.
fn find<'a>(members: &'a [Member], name: &str) -> anyhow::Result<&'a Member> {
    let mut found = members.iter().filter(|member| member.name == name || id(member) == name);
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (Some(_), Some(_)) => bail!("several members are called {name:?}: give the id"),
        (None, _) => {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            bail!("no member is called {name:?}; there are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_without_a_member_must_not_ask_anybody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(leave(dir.path()).await.unwrap(), None);
    }

    #[test]
    fn a_member_is_found_by_name_or_id_and_never_another_one() {
        let member = |id, name: &str| Member { id, name: name.into(), ..Member::default() };
        let members = [member(0xa1, "n1"), member(0xa2, "n2"), member(0xa3, "n2")];
        assert_eq!(find(&members, "n1").unwrap().id, 0xa1);
        assert_eq!(find(&members, "a3").unwrap().id, 0xa3);
        assert!(find(&members, "n2").is_err() && find(&members, "n").is_err());
    }
}
