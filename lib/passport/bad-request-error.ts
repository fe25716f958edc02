/**
 * What passport-headerapikey hands to a failure where a key is missing or has not the prefix. `HeaderAPIKeyStrategy` of
 * this package hands a challenge instead; the class is here for programs that import it.
 */
export class BadRequestError extends Error {
  override readonly name = 'BadRequestError'
}
