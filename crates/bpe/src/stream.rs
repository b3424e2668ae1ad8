//! Text -> ids, fed piece by piece.
