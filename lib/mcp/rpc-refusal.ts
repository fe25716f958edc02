import type { LatchkeyError } from '../errors.ts'
import { renderProblem, toProblem } from '../http/problem.ts'
import { refusal } from '../http/refused-request.ts'

/** The id of a JSON-RPC request. */
export type RequestId = string | number

/** Error codes of JSON-RPC 2.0, and the one that MCP reserves for header fields that differ from the body. */
export type RpcCode = -32700 | -32600 | -32020

/**
 * A request that is no message of MCP, or whose header fields say something else. The protocol asks for a JSON-RPC error with status
 * 400; `data` is the problem body.
 *
 * ```http
 * HTTP/1.1 400 Bad Request
 * Content-Type: application/json
 *
 * {"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"…","data":{"status":400,"code":"invalid_request"}}}
 * ```
 */
export class RpcRefusal {
  readonly error: LatchkeyError

  /** @param id of the request; null if it has none, or several */
  constructor(
    private readonly code: RpcCode,
    private readonly detail: string,
    private readonly id: RequestId | null = null,
  ) {
    this.error = refusal('invalid_request', { detail })
  }

  render(): { headers: Record<string, string>; body: string } {
    const { code, detail: message, id, error } = this
    const body = { jsonrpc: '2.0', id, error: { code, message, data: toProblem(error) } }
    const { headers } = renderProblem(error)
    return { headers: { ...headers, 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  }
}
