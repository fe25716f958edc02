import { ApiKeysClientError } from './client-error.ts'

/** More than a page of a hundred keys can be. */
const MAX_BYTES = 32 * 1_048_576

/**
 * The text of a response, as long as it is one of the interface.
 *
 * @throws ApiKeysClientError `unavailable` where it goes on without end.
 */
export async function readText(response: Response): Promise<string> {
  const { body } = response
  // A `fetch` of the program's own need not know streams.
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
