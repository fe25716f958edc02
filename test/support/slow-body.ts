/** The body of a request that comes in two parts: the second once `between` has resolved. */
export function slowBody(first: string, between: () => Promise<void>, second: string): ReadableStream {
  const encoder = new TextEncoder()
  return new ReadableStream({
    async start(body) {
      body.enqueue(encoder.encode(first))
      await between()
      body.enqueue(encoder.encode(second))
      body.close()
    },
  })
}
