import { stateOf } from '../http/request-state.ts'

/** By request. */
const known = new WeakMap<Request, ResponseParts>()

/**
 * What is known of a response before there is one: its fields, and what to run when it has ended. A function that gets a `Request`
 * returns the `Response`, and never learns how that ends.
 */
export class ResponseParts {
  readonly headers = new Headers()
  /** Whether the response has been handed to the server, with the fields as they were. */
  headersSent = false
  private readonly runs = new Set<() => void>()
  private isWatched = false
  private readonly request: WeakRef<Request>
  /** Whether the request is a HEAD: nobody reads the body of its response. */
  private readonly isHead: boolean

  /** The one of a request, whoever asks first. */
  static of(request: Request): ResponseParts {
    let parts = known.get(request)
    if (!parts) {
      parts = new ResponseParts(request)
      known.set(request, parts)
      stateOf(request).fields = parts
    }
    return parts
  }

  private constructor(request: Request) {
    this.request = new WeakRef(request)
    this.isHead = request.method === 'HEAD'
  }

  setHeader(name: string, value: string): void {
    this.headers.set(name, value)
  }

  /** Runs `run` once the response has ended, the client has gone away, or nobody holds the request any more. */
  readonly onceEnded = (run: () => void): void => {
    this.runs.add(run)
    const request = this.request.deref()
    if (this.isWatched || !request) return
    this.isWatched = true
    abandoned.register(request, this.runs)
    // Packages that make requests of their own may leave it out.
    const signal: AbortSignal | null | undefined = request.signal
    if (signal?.aborted) endAll(this.runs)
    else signal?.addEventListener('abort', () => endAll(this.runs), { once: true })
  }

  /** The response with the fields, but for those that it has itself. Throws where it cannot be sent: its body is locked or used. */
  readonly finish = (response: Response): Response => {
    this.headersSent = true
    try {
      if (this.isHead) endAll(this.runs)
      const fielded = withFields(response, this.headers)
      return this.runs.size === 0 ? fielded : withEnd(fielded, () => endAll(this.runs))
    } catch (error) {
      endAll(this.runs)
      throw error
    }
  }
}

/** Requests that nobody answers with what was made of them. */
const abandoned = new FinalizationRegistry<Set<() => void>>(endAll)

function endAll(runs: Set<() => void>): void {
  const all = [...runs]
  runs.clear()
  for (const run of all) run()
}

/**
 * Where the fields of a response cannot be set, as of one that was fetched, a copy has them. What accepts a WebSocket (101) and
 * `Response.error()` cannot be copied either, and go without.
 */
function withFields(response: Response, fields: Headers): Response {
  const missing = [...fields].filter(([name]) => !response.headers.has(name))
  if (missing.length === 0) return response
  try {
    for (const [name, value] of missing) response.headers.set(name, value)
    return response
  } catch {
    if (response.status < 200) return response
    const copy = new Response(response.body, response)
    for (const [name, value] of missing) copy.headers.set(name, value)
    return copy
  }
}

/** The same response, which runs `end` once its body has been read to the end, or is no longer wanted. */
function withEnd(response: Response, end: () => void): Response {
  const { body } = response
  if (!body) {
    end()
    return response
  }
  return new Response(watched(body.getReader(), end), response)
}

function watched(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  end: () => void,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read()
        if (!done) {
          controller.enqueue(value)
          return
        }
        end()
        controller.close()
      } catch (error) {
        end()
        throw error
      }
    },
    cancel(reason) {
      end()
      return reader.cancel(reason)
    },
  })
}
