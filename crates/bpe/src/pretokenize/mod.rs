//! Text -> pretokens.
