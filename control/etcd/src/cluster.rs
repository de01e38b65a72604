//! Who is a member, and changing that.

use crate::client::{ATTEMPT, Client, LONG_ATTEMPT, Repeat, kv};
use crate::failure::Failure;
use crate::v3::cluster_client::ClusterClient;
use crate::v3::maintenance_client::MaintenanceClient;
use crate::v3::{
    Member, MemberAddRequest, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberRemoveRequest, RangeRequest, StatusRequest, StatusResponse,
};

/// A cluster and its members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// The cluster's id, the same for its life; one that is begun anew or restored has another.
    pub cluster: u64,
    /// Learners included.
    pub members: Vec<Member>,
}

impl From<MemberListResponse> for Membership {
    fn from(listed: MemberListResponse) -> Self {
        Self { cluster: listed.header.map_or(0, |header| header.cluster_id), members: listed.members }
    }
}

impl Client {
    /// The members as a majority knows them: what was changed before the call is in it.
    ///
    /// # Errors
    /// As [`Failure`] says; there is none without a majority.
    pub async fn member_list(&self) -> Result<Membership, Failure> {
        let listed = self.call(Repeat::Always, ATTEMPT, |channel| async move {
            // Before 3.5 a member lists what it knows itself, whatever it is asked for. After a fresh read it has caught up.
            let fresh = RangeRequest { key: vec![0].into(), count_only: true, ..RangeRequest::default() };
            kv(channel.clone()).range(fresh).await?;
            ClusterClient::new(channel).member_list(MemberListRequest { linearizable: true }).await
        });
        Ok(listed.await?.into())
    }

    /// The members as the one that is asked knows them, which may be long ago; it needs no majority.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn member_list_of_one(&self) -> Result<Membership, Failure> {
        let listed = self.call(Repeat::Always, ATTEMPT, |channel| async move {
            ClusterClient::new(channel).member_list(MemberListRequest { linearizable: false }).await
        });
        Ok(listed.await?.into())
    }

    /// Adds a member that has no vote yet; gives its id.
    ///
    /// # Errors
    /// As [`Failure`] says. Whoever does not know whether it was added finds it in the list.
    pub async fn member_add_learner(&self, peer_url: &str) -> Result<u64, Failure> {
        let added = self
            .call(Repeat::Unseen, LONG_ATTEMPT, |channel| {
                let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
                async move { ClusterClient::new(channel).member_add(request).await }
            })
            .await?;
        Ok(added.member.map_or(0, |member| member.id))
    }

    /// Gives a learner its vote.
    ///
    /// # Errors
    /// As [`Failure`] says: the member is none, has a vote already, or has not caught up.
    pub async fn member_promote(&self, id: u64) -> Result<(), Failure> {
        let done = self.call(Repeat::Always, LONG_ATTEMPT, |channel| async move {
            ClusterClient::new(channel).member_promote(MemberPromoteRequest { id }).await
        });
        done.await.map(drop)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// As [`Failure`] says; removed twice, the second time it is not found.
    pub async fn member_remove(&self, id: u64) -> Result<(), Failure> {
        let done = self.call(Repeat::Always, LONG_ATTEMPT, |channel| async move {
            ClusterClient::new(channel).member_remove(MemberRemoveRequest { id }).await
        });
        done.await.map(drop)
    }

    /// How a member is: of the one that is asked.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn status(&self) -> Result<StatusResponse, Failure> {
        self.call(Repeat::Always, ATTEMPT, |channel| async move {
            MaintenanceClient::new(channel).status(StatusRequest {}).await
        })
        .await
    }
}
