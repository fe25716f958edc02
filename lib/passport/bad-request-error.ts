/** What `HeaderAPIKeyStrategy` passes to a custom callback when a key is missing or malformed. */
export class BadRequestError extends Error {
  override readonly name = 'BadRequestError'

  constructor(message: string) {
    super(message)
    // Applications answer with it as JSON, where an error's message is not seen.
    Object.defineProperty(this, 'message', { value: message, enumerable: true })
  }
}
