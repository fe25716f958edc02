import type { HeaderFields } from '../http/raw-request.ts'
import { type CallMessage, type Message, own } from './messages.ts'
import { RpcRefusal } from './rpc-refusal.ts'

/**
 * Which parameter `Mcp-Name` repeats (MCP 2026-07-28, Streamable HTTP, "Standard Request Headers"; SEP-2663 for tasks).
 */
const NAMED_BY: ReadonlyMap<string, string> = new Map([
  ['tools/call', 'name'],
  ['prompts/get', 'name'],
  ['resources/read', 'uri'],
  ['tasks/get', 'taskId'],
  ['tasks/update', 'taskId'],
  ['tasks/cancel', 'taskId'],
])

/**
 * Requires that `Mcp-Method` and `Mcp-Name` say what every message of the body says. A proxy may have decided by them. Revisions
 * before 2026-07-28 do not know these fields, so they may be missing; whether they must be there is for the server to check.
 *
 * @throws RpcRefusal
 */
export function checkHeaderFields(fields: HeaderFields, messages: readonly Message[]): void {
  const method = textOf(fields['mcp-method'])
  const name = textOf(fields['mcp-name'])
  if (method === null && name === null) return
  for (const message of messages) {
    const call = message.kind === 'call' ? message : null
    if (method !== null && method !== call?.method) throw mismatch('Mcp-Method', message)
    if (name !== null && !isWritten(name, nameOf(call))) throw mismatch('Mcp-Name', message)
  }
}

function mismatch(field: string, { id }: Message): RpcRefusal {
  return new RpcRefusal(-32020, `Header mismatch: ${field} differs from the body`, id)
}

function nameOf(call: CallMessage | null): unknown {
  const parameter = call ? NAMED_BY.get(call.method) : undefined
  return call && parameter !== undefined ? own(call.params, parameter) : undefined
}

/** The value of a field; several are joined, as servers do. */
function textOf(value: string | string[] | undefined): string | null {
  return value === undefined ? null : String(value)
}

const ENCODED = /^=\?base64\?.*\?=$/

/** Whether a field says this name. What is no plain ASCII comes as Base64 of UTF-8, and so does what looks like that itself. */
function isWritten(field: string, name: unknown): boolean {
  if (typeof name !== 'string') return false
  return field === (ENCODED.test(field) ? `=?base64?${Buffer.from(name).toString('base64')}?=` : name)
}
