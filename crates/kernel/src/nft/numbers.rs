//! Numbers of linux/netfilter/nf_tables.h: messages, attributes, expression keys. Named as there, without `NFT_`.

#![allow(missing_docs, reason = "the names are those of the header")]

pub(super) const MSG_NEWTABLE: u16 = 0;
pub(super) const MSG_DELTABLE: u16 = 2;
pub(super) const MSG_NEWCHAIN: u16 = 3;
pub(super) const MSG_GETCHAIN: u16 = 4;
pub(super) const MSG_DELCHAIN: u16 = 5;
pub(super) const MSG_NEWRULE: u16 = 6;
pub(super) const MSG_GETRULE: u16 = 7;
pub(super) const MSG_DELRULE: u16 = 8;
pub(super) const MSG_NEWSET: u16 = 9;
pub(super) const MSG_GETSET: u16 = 10;
pub(super) const MSG_DELSET: u16 = 11;
pub(super) const MSG_NEWSETELEM: u16 = 12;
pub(super) const MSG_GETSETELEM: u16 = 13;
pub(super) const MSG_DELSETELEM: u16 = 14;
pub(super) const MSG_GETGEN: u16 = 16;

/// In table, chain, rule, set and element messages alike.
pub(super) const TABLE: u16 = 1;
pub(super) const LIST_ELEM: u16 = 1;

pub(super) const TABLE_FLAGS: u16 = 2;

pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_HOOKNUM: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;

pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;

pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LEN: u16 = 5;
pub(super) const SET_DATA_TYPE: u16 = 6;
pub(super) const SET_DATA_LEN: u16 = 7;
pub(super) const SET_DESC: u16 = 9;
pub(super) const SET_ID: u16 = 10;
pub(super) const SET_DESC_SIZE: u16 = 1;
pub(super) const SET_DESC_CONCAT: u16 = 2;
pub(super) const SET_FIELD_LEN: u16 = 1;
pub(super) const SET_FLAG_INTERVAL: u32 = 4;
pub(super) const SET_FLAG_MAP: u32 = 8;
pub(super) const SET_FLAG_TIMEOUT: u32 = 0x10;
pub(super) const SET_FLAG_EVAL: u32 = 0x20;
pub(super) const SET_FLAG_CONCAT: u32 = 0x80;

pub(super) const SET_ELEM_LIST_SET: u16 = 2;
pub(super) const SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const SET_ELEM_KEY: u16 = 1;
pub(super) const SET_ELEM_DATA: u16 = 2;
pub(super) const SET_ELEM_FLAGS: u16 = 3;
pub(super) const SET_ELEM_TIMEOUT: u16 = 4;
pub(super) const SET_ELEM_KEY_END: u16 = 10;
pub(super) const SET_ELEM_INTERVAL_END: u32 = 1;

pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;
pub(super) const DATATYPE_VERDICT: u32 = 0xffff_ff00;

pub(super) const VERDICT_DROP: i32 = 0;
pub(super) const VERDICT_JUMP: i32 = -3;
pub(super) const VERDICT_GOTO: i32 = -4;
/// The register of verdicts, and the first of the sixteen others.
pub(super) const REG_VERDICT: u32 = 0;
pub(super) const REG32_00: u32 = 8;

pub(super) const DYNSET_UPDATE: u32 = 1;
pub(super) const DYNSET_DELETE: u32 = 2;
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;
/// The transport header, as a base of payloads.
pub(super) const TRANSPORT: u32 = 2;
pub(super) const SET_ELEM_EXPR: u16 = 7;
pub(super) const COUNTER_PACKETS: u16 = 2;
/// `nft`'s own numbers of types.
pub(super) const TYPE_PROTOCOL: u32 = 12;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const REJECT_TCP_RESET: u32 = 1;

pub(super) const GEN_ID: u16 = 1;
