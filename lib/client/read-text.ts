import { ApiKeysClientError } from './client-error.ts'

/** Larger than any page of a hundred keys. */
const MAX_BYTES = 32 * 1_048_576

/**
 * Reads the text of a response, up to a limit that no valid response reaches.
 *
 * @throws ApiKeysClientError `unavailable` if the response is longer.
 */
export async function readText(response: Response): Promise<string> {
  const { body } = response
  // A custom `fetch` may not support streams.
  if (typeof body?.getReader !== 'function') return response.text()
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let text = ''
  for (let bytes = 0; ; ) {
    const { done, value } = await reader.read()
    if (done) return text + decoder.decode()
    bytes += value.byteLength
    if (bytes > MAX_BYTES) {
      reader.cancel().catch(() => {})
      const message = `the response is longer than ${MAX_BYTES} bytes`
      throw new ApiKeysClientError('unavailable', { message, responseStatus: response.status })
    }
    text += decoder.decode(value, { stream: true })
  }
}
