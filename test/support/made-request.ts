export interface MadeRequest {
  headers: Record<string, unknown>
  rawHeaders?: string[]
}

/** A request as Node makes it of these lines: fields of its own are joined, and of `Authorization` the first is kept. */
export function makeRequest(...lines: readonly (readonly [name: string, value: string])[]): MadeRequest {
  const headers: Record<string, string> = {}
  for (const [name, value] of lines) {
    const lower = name.toLowerCase()
    if (headers[lower] === undefined) headers[lower] = value
    else if (lower !== 'authorization') headers[lower] += `, ${value}`
  }
  return { headers, rawHeaders: lines.flat() }
}
