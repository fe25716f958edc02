import { apiKeyAuth, requirePermissions, withApiKey } from 'latchkey/fetch'
import { describe, expect, it } from 'vitest'
import { settle as tick } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { createTestKeys } from '../support/test-keys.ts'

const PLACES = 3

async function setUp() {
  const test = createTestKeys({ rateLimits: [{ name: 'parallel', concurrent: PLACES }] })
  const { key, apiKey } = await issueKey(test.keys, { permissions: { projects: ['read'] } })
  const held = async () => {
    await tick()
    return PLACES - Number((await test.keys.limits(apiKey.id))?.[0]?.remaining)
  }
  const ask = (signal?: AbortSignal) =>
    new Request('https://api.example.com', {
      headers: { 'X-Api-Key': key },
      ...(signal && { signal }),
    })
  return { ...test, ask, held }
}

/** A body of three pieces. */
function pieces(error?: Error): ReadableStream<Uint8Array> {
  let sent = 0
  return new ReadableStream({
    pull(controller) {
      sent += 1
      if (error && sent === 2) controller.error(error)
      else if (sent > 3) controller.close()
      else controller.enqueue(new Uint8Array([sent]))
    },
  })
}

describe('a place of a limit on requests under way is given back', () => {
  it('once the body has been read to its end, and not before', async () => {
    const { keys, ask, held } = await setUp()
    const response = await withApiKey(keys, () => new Response(pieces()))(ask())
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    await reader.read()
    expect(await held()).toBe(1)
    while (!(await reader.read()).done) await tick()
    expect(await held()).toBe(0)
  })

  it('once nobody wants the body any more, which its source is told', async () => {
    const { keys, ask, held } = await setUp()
    let reason: unknown
    const source = new ReadableStream({
      cancel(given) {
        reason = given
      },
    })
    const response = await withApiKey(keys, () => new Response(source))(ask())
    expect(await held()).toBe(1)
    await response.body?.cancel('enough')
    expect([await held(), reason]).toEqual([0, 'enough'])
  })

  it('where the body fails midway, and the failure is passed on', async () => {
    const { keys, ask, held } = await setUp()
    const response = await withApiKey(keys, () => new Response(pieces(new Error('broken'))))(ask())
    await expect(response.arrayBuffer()).rejects.toThrow('broken')
    expect(await held()).toBe(0)
  })

  it('at once for a response without a body', async () => {
    const { keys, ask, held } = await setUp()
    await withApiKey(keys, () => new Response(null, { status: 204 }))(ask())
    expect(await held()).toBe(0)
  })

  it('at once for HEAD, whose body nobody reads', async () => {
    const { keys, ask, held } = await setUp()
    const caller = await apiKeyAuth(keys)(new Request(ask(), { method: 'HEAD' }))
    if (caller.ok) caller.finish(new Response('as for GET'))
    expect([caller.ok, await held()]).toEqual([true, 0])
  })

  it('where a response cannot be sent, which is told', async () => {
    const { keys, ask, held } = await setUp()
    const used = new Response('read')
    await used.text()
    const locked = new Response('held')
    locked.body?.getReader()
    for (const response of [used, locked, undefined as never]) {
      const caller = await apiKeyAuth(keys)(ask())
      if (!caller.ok) throw caller.error
      expect(() => caller.finish(response)).toThrow(TypeError)
      expect(await held()).toBe(0)
    }
  })

  it('where the request has no signal', async () => {
    const { keys, ask, held } = await setUp()
    const request = Object.defineProperty(ask(), 'signal', { value: null })
    const caller = await apiKeyAuth(keys)(request)
    expect([caller.ok, await held()]).toEqual([true, 1])
    if (caller.ok) await caller.finish(new Response('in')).text()
    expect(await held()).toBe(0)
  })

  it('where the handler throws', async () => {
    const { keys, ask, held } = await setUp()
    const handle = withApiKey(keys, async () => {
      expect(await held()).toBe(1)
      throw new Error('no')
    })
    await expect(handle(ask())).rejects.toThrow('no')
    expect(await held()).toBe(0)
  })

  it('where a later guard or check refuses', async () => {
    const { keys, ask, held } = await setUp()
    const request = ask()
    await apiKeyAuth(keys)(request)
    expect(await held()).toBe(1)
    await requirePermissions({ projects: ['write'] })(request)?.text()
    expect(await held()).toBe(0)
    const second = ask()
    await apiKeyAuth(keys)(second)
    const caller = await apiKeyAuth(keys, { permissions: { projects: ['write'] } })(second)
    if (!caller.ok) await caller.response.text()
    expect([caller.ok, await held()]).toEqual([false, 0])
  })

  it('when the client goes away, while the handler is at work or before', async () => {
    const { keys, ask, held } = await setUp()
    const client = new AbortController()
    expect(await apiKeyAuth(keys)(ask(client.signal))).toMatchObject({ ok: true })
    expect(await held()).toBe(1)
    client.abort()
    expect(await held()).toBe(0)
    await apiKeyAuth(keys)(ask(AbortSignal.abort()))
    expect(await held()).toBe(0)
  })

  it('once for a request, however often it was asked and finished', async () => {
    const { keys, ask, held } = await setUp()
    const [request, other] = [ask(), ask()]
    const callers = [await apiKeyAuth(keys)(request), await apiKeyAuth(keys)(request)]
    await apiKeyAuth(keys)(other)
    expect(await held()).toBe(2)
    for (const caller of callers) if (caller.ok) caller.finish(new Response(null))
    expect(await held()).toBe(1)
  })
})
