/** The challenge of a request without a key, and of one with a bad key, where all usual places are read. */
export const BARE = 'Api-Key realm="Users", Bearer realm="Users"'
export const INVALID =
  'Api-Key realm="Users", error="invalid_key", Bearer realm="Users", error="invalid_token"'
