import { BOUNDS } from '../core/keys/bounds.ts'
import { missingPermissions, type PermissionRequirement, type Permissions } from '../core/keys/permissions.ts'
import { toldBy } from '../core/keys/requirement-of-request.ts'
import { type Cost, sumOfCosts } from '../core/limits/cost.ts'
import type { LatchkeyError } from '../errors.ts'
import { refusal } from '../http/refused-request.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { isPlainObject } from '../internal/options.ts'
import { type CallMessage, type Message, own } from './messages.ts'
import { RpcRefusal } from './rpc-refusal.ts'
import { type CheckedRule, type CheckedRules, type McpCall, readingsOf } from './rules.ts'

/** What the messages of a request need and cost together, or why they are refused. */
export type Judgement =
  | { readonly permissions: PermissionRequirement | undefined; readonly cost: Cost | (() => Awaitable<Cost>) }
  /** Permissions that the key lacks. Whoever is let in by them is to be judged once more: they were given meanwhile. */
  | { readonly lacking: PermissionRequirement }
  | { readonly refused: LatchkeyError }

/** A rule that a call is under. */
interface Ruled {
  readonly rule: CheckedRule
  readonly call: McpCall
  /** Whether the call costs what the rule says, and does not only need its permissions. */
  readonly isCharged: boolean
}

const NO_ARGUMENTS = Object.freeze({})

/** The most resources that one `subscriptions/listen` may name. */
const MAX_SUBSCRIPTIONS = 1_000
/** The most checks for one request: a batch of long subscriptions would keep the process busy, and is free. */
const MAX_CHECKS = 4_000

/**
 * Judges all messages of a request before anything is spent. Where permissions are missing, only those are asked for: their
 * verification refuses the key and reports it.
 *
 * @throws RpcRefusal for what is no call of MCP.
 */
export function judge(rules: CheckedRules, messages: readonly Message[], granted: Permissions): Judgement {
  const ruled: Ruled[] = []
  for (const message of messages) {
    if (message.kind === 'answer') continue
    const found = rulesOf(rules, message)
    if (typeof found === 'string') {
      return { refused: refusal('operation_not_allowed', { detail: `No rule allows this ${found}` }) }
    }
    ruled.push(...found)
    if (ruled.length > MAX_CHECKS) {
      throw new RpcRefusal(-32600, 'A batch must not be about so many resources: send its calls one by one')
    }
  }
  const needed = new Map<string, Set<string>>()
  for (const requirement of new Set(ruled.map(({ rule, call }) => rule.requirementOf(call)))) {
    if (requirement === undefined) continue
    const held = heldOf(granted, requirement)
    if (!held) return { lacking: requirement }
    addTo(needed, held)
  }
  return { permissions: together(needed), cost: costOf(ruled) }
}

/** The rules of a call; what has no rule, in a word. */
function rulesOf(rules: CheckedRules, message: CallMessage): readonly Ruled[] | string {
  const { method, params } = message
  switch (method) {
    case 'tools/call':
      return onOne(rules.tool, 'tool', message, 'name')
    case 'prompts/get':
      return onOne(rules.prompt, 'prompt', message, 'name')
    case 'resources/read':
      return onOne(rules.resource, 'resource', message, 'uri')
    default: {
      const rule = rules.method(method)
      if (!rule) return 'method'
      const about = subjectsOf(rules, message)
      if (typeof about === 'string') return about
      return [
        { rule, call: { method, name: undefined, arguments: NO_ARGUMENTS, params }, isCharged: true },
        ...about,
      ]
    }
  }
}

function onOne(
  find: (name: string) => CheckedRule | undefined,
  kind: string,
  message: CallMessage,
  parameter: 'name' | 'uri',
  isCharged = true,
): readonly Ruled[] | string {
  const { method, params, id } = message
  const name = own(params, parameter)
  if (typeof name !== 'string') throw new RpcRefusal(-32600, `"params.${parameter}" must be a string`, id)
  const given = own(params, 'arguments')
  if (given !== undefined && !isPlainObject(given)) {
    throw new RpcRefusal(-32600, '"params.arguments" must be an object', id)
  }
  const rule = find(name)
  if (!rule) return kind
  // Functions are asked about every reading of a URI. The first is charged: it is what the SDK reads.
  const readings = parameter === 'uri' ? readingsOf(name) : [name]
  return readings.map((reading) => ({
    rule,
    call: {
      method,
      name: reading,
      arguments: given ?? NO_ARGUMENTS,
      params: reading === name ? params : { ...params, uri: reading },
    },
    isCharged: isCharged && reading === readings[0],
  }))
}

/** What other methods are about: its permissions are needed too. */
function subjectsOf(rules: CheckedRules, message: CallMessage): readonly Ruled[] | string {
  const { method, params, id } = message
  switch (method) {
    case 'resources/subscribe':
      return onOne(rules.resource, 'resource', message, 'uri', false)
    case 'completion/complete': {
      const ref = own(params, 'ref')
      const type = isPlainObject(ref) ? own(ref, 'type') : undefined
      if (!isPlainObject(ref) || (type !== 'ref/prompt' && type !== 'ref/resource')) {
        throw new RpcRefusal(-32600, '"params.ref" must refer to a prompt or a resource', id)
      }
      return type === 'ref/prompt'
        ? onOne(rules.prompt, 'prompt', { ...message, params: ref }, 'name', false)
        : onOne(rules.resource, 'resource', { ...message, params: ref }, 'uri', false)
    }
    case 'subscriptions/listen': {
      const filter = own(params, 'notifications')
      const uris = isPlainObject(filter) ? (own(filter, 'resourceSubscriptions') ?? []) : []
      if (!Array.isArray(uris) || uris.length > MAX_SUBSCRIPTIONS) {
        const must = `be an array of at most ${MAX_SUBSCRIPTIONS} URIs`
        throw new RpcRefusal(-32600, `"resourceSubscriptions" must ${must}`, id)
      }
      const found = uris.map((uri) =>
        onOne(rules.resource, 'resource', { ...message, params: { uri } }, 'uri', false),
      )
      return (
        found.find((one) => typeof one === 'string') ??
        found.flatMap((one) => (typeof one === 'string' ? [] : one))
      )
    }
    default:
      return []
  }
}

/** The alternative of a requirement that is met; null if none is, or nobody can tell. */
function heldOf(granted: Permissions, requirement: PermissionRequirement): Permissions | null {
  const told = toldBy(requirement)
  if ('error' in told) return null
  const alternatives = Array.isArray(told.requirement) ? told.requirement : [told.requirement]
  return alternatives.find((one: Permissions) => missingPermissions(granted, one) === null) ?? null
}

function addTo(needed: Map<string, Set<string>>, permissions: Permissions): void {
  for (const [resource, actions] of Object.entries(permissions)) {
    const known = needed.get(resource)
    if (known) for (const action of actions) known.add(action)
    else needed.set(resource, new Set(actions))
  }
}

/** All of them as one requirement, which the key is verified with once more when it is charged. */
function together(needed: ReadonlyMap<string, ReadonlySet<string>>): Permissions | undefined {
  if (needed.size === 0) return undefined
  const { max } = BOUNDS.permissions
  if (needed.size > max || [...needed.values()].some((actions) => actions.size > max)) {
    throw new RpcRefusal(-32600, 'A batch must not need so many permissions: send its calls one by one')
  }
  return Object.fromEntries([...needed].map(([resource, actions]) => [resource, [...actions]]))
}

function costOf(ruled: readonly Ruled[]): Cost | (() => Awaitable<Cost>) {
  const costs = ruled.filter(({ isCharged }) => isCharged).map(({ rule, call }) => rule.costOf(call))
  const fixed = costs.filter((cost): cost is Cost => typeof cost !== 'function')
  if (fixed.length === costs.length) return sumOfCosts(fixed)
  return async () =>
    // Each in a promise: where one throws at once, nobody would wait for the others.
    sumOfCosts(await Promise.all(costs.map(async (cost) => (typeof cost === 'function' ? cost() : cost))))
}
