/** What a failure of `HeaderAPIKeyStrategy` tells a custom callback where a key is missing, or is none by its form. */
export class BadRequestError extends Error {
  override readonly name = 'BadRequestError'

  constructor(message: string) {
    super(message)
    // Applications answer with it as JSON, where an error's message is not seen.
    Object.defineProperty(this, 'message', { value: message, enumerable: true })
  }
}
