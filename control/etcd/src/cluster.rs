//! Who is a member, and changing that.

use crate::client::{ATTEMPT, Client, LONG_ATTEMPT, Repeat};
use crate::failure::Failure;
use crate::v3::cluster_client::ClusterClient;
use crate::v3::maintenance_client::MaintenanceClient;
use crate::v3::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, StatusRequest,
    StatusResponse,
};

impl Client {
    /// The members, learners included.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn member_list(&self) -> Result<Vec<Member>, Failure> {
        let listed = self
            .call(Repeat::Always, ATTEMPT, |channel| async move {
                ClusterClient::new(channel).member_list(MemberListRequest { linearizable: true }).await
            })
            .await?;
        Ok(listed.members)
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
