use super::*;
use crate::hosts::name;
use hickory_proto::op::{Edns, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA as Authority};
use hickory_proto::rr::{RData, Record};

fn question(id: u16, of: &str) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(of).unwrap(), RecordType::A));
    message
}

fn yes(request: &Message, times: &[u32]) -> Message {
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.add_queries(request.queries.clone());
    for time in times {
        let owner = request.queries[0].name().clone();
        response.add_answer(Record::from_rdata(owner, *time, RData::A(A::new(192, 0, 2, 1))));
    }
    response
}

fn no(request: &Message, time: u32, minimum: u32) -> Message {
    let mut response = yes(request, &[]);
    response.metadata.response_code = ResponseCode::NXDomain;
    let zone = name("example").unwrap();
    let soa = Authority::new(zone.clone(), zone.clone(), 1, 2, 3, 4, minimum);
    response.add_authority(Record::from_rdata(zone, time, RData::SOA(soa)));
    response
}

/// Keeps an answer; gives for how many seconds it is there.
fn kept(response: &Message, request: &Message) -> u64 {
    let (cache, key, now) = (Cache::default(), Key::of(request).unwrap(), Instant::now());
    let bytes = request.to_vec().unwrap();
    cache.put(key.clone(), &bytes, &response.to_vec().unwrap(), now);
    let there = |seconds: &u64| cache.get(&key, &bytes, 512, now + Duration::from_secs(*seconds)).is_some();
    (0..100).take_while(there).count() as u64
}

#[test]
fn an_answer_must_not_be_kept_longer_than_it_may_be() {
    let request = question(1, "a.example");
    assert_eq!(kept(&yes(&request, &[9, 20]), &request), 9);
    assert_eq!(kept(&yes(&request, &[3600]), &request), 30);
    assert_eq!(kept(&yes(&request, &[0]), &request), 0);
    assert_eq!(kept(&no(&request, 20, 5), &request), 5);
    assert_eq!(kept(&no(&request, 3, 5), &request), 3);
    assert_eq!(kept(&yes(&request, &[]), &request), 0, "a no without an authority says nothing of its time");
}

#[test]
fn an_answer_that_is_not_whole_or_a_failure_must_not_be_kept() {
    let request = question(1, "a.example");
    let mut torn = yes(&request, &[9]);
    torn.metadata.truncation = true;
    let mut failed = yes(&request, &[9]);
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!((kept(&torn, &request), kept(&failed, &request)), (0, 0));
    let bytes = yes(&request, &[9]).to_vec().unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(Layout::of(&bytes[..cut]), None, "{cut}");
    }
}

#[test]
fn another_client_must_not_see_the_first_ones_id_spelling_or_time() {
    let first = question(1, "a.Example");
    let (cache, now) = (Cache::default(), Instant::now());
    cache.put(Key::of(&first).unwrap(), &first.to_vec().unwrap(), &yes(&first, &[20]).to_vec().unwrap(), now);
    let second = question(2, "A.eXample");
    let bytes = second.to_vec().unwrap();
    let key = Key::of(&second).unwrap();
    let answer = cache.get(&key, &bytes, 512, now + Duration::from_secs(7)).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, answer.answers[0].ttl), (2, 13));
    assert_eq!(answer.queries[0].name().to_ascii(), "A.eXample.");
    assert_eq!(cache.get(&key, &bytes, 20, now), None, "more than the client takes");
    cache.clear();
    assert_eq!(cache.get(&key, &bytes, 512, now), None);
}

#[test]
fn questions_that_differ_must_not_share_an_answer() {
    let plain = question(1, "a.example");
    let mut signed = plain.clone();
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    signed.set_edns(edns);
    let mut unchecked = plain.clone();
    unchecked.metadata.checking_disabled = true;
    let keys: std::collections::HashSet<Key> =
        [&plain, &signed, &unchecked].map(|m| Key::of(m).unwrap()).into();
    assert_eq!(keys.len(), 3);
    let mut alone = plain.clone();
    alone.metadata.recursion_desired = false;
    assert_eq!(Key::of(&alone), None);
    assert_eq!(Key::of(&question(9, "A.example")), Key::of(&plain));
}

#[test]
fn the_cache_must_not_grow_without_bound() {
    let (cache, now) = (Cache::default(), Instant::now());
    for index in 0..MOST + 10 {
        let request = question(1, &format!("n{index}.example"));
        cache.put(
            Key::of(&request).unwrap(),
            &request.to_vec().unwrap(),
            &yes(&request, &[20]).to_vec().unwrap(),
            now,
        );
    }
    assert_eq!(cache.0.lock().len(), MOST);
    let late = question(1, "late.example");
    cache.put(
        Key::of(&late).unwrap(),
        &late.to_vec().unwrap(),
        &yes(&late, &[20]).to_vec().unwrap(),
        now + LONGEST,
    );
    assert_eq!(cache.0.lock().len(), 1, "what is over goes first");
}

#[test]
fn an_answer_to_another_question_must_not_be_kept() {
    let (request, other) = (question(1, "a.example"), question(1, "b.example"));
    assert_eq!(kept(&yes(&other, &[20]), &request), 0);
    let mut longer = question(1, "a.example");
    longer.queries[0].set_name(name("a.a.example").unwrap());
    assert_eq!(kept(&yes(&longer, &[20]), &request), 0);
}
